"""Scans in any folders, as people have them."""
