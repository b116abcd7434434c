"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Return their number: those that Linux lets the process run on, elsewhere all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
