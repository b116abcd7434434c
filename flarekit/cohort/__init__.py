"""Many scans on several machines: what parts of a cohort left becomes one, and what runs on Ray."""
