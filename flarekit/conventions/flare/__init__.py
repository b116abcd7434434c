"""FLARE (21 to 26): a folder of NIfTI scans in, one NIfTI mask each out."""
