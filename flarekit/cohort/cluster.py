"""A Ray cluster: connected to for a while, and how many workers it has room for."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from flarekit.cohort.pool import WorkerNeeds
from flarekit.core.errors import UsageError
from flarekit.core.extras import require

_MIB = 2**20


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine, for a while.

    Args:
        address: `local`, `auto` or `ray://HOST:PORT`.

    Raises:
        UsageError: Ray is not installed, or no cluster is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU given, none seen
    require("ray", "cluster")
    import ray

    own = ray.is_initialized()
    if not own:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"no Ray cluster at {address!r}: {said}",
                fix="start one with `ray start --head`, or say --address local; where it asks for "
                "a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as Ray's documentation says",
            ) from error
    try:
        yield
    finally:
        if not own:
            ray.shutdown()


def places_for(needs: WorkerNeeds) -> int:
    """Return how many workers the cluster has room for, at least one."""
    import ray

    places = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has = node["Resources"]
        fitting = [
            math.floor(has.get(name, 0.0) / needed + 1e-9)
            for name, needed in (
                ("CPU", needs.cpus),
                ("GPU", needs.gpus),
                ("memory", needs.memory_mib * _MIB),
            )
            if needed
        ]
        places += min(fitting, default=0)
    return max(1, places)
