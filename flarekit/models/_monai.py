"""Networks of MONAI (extra `peers`) that the papers compare theirs with; imported where built."""

from __future__ import annotations

from typing import Any

from flarekit.core.errors import UsageError
from flarekit.core.extras import how_to_install

PEERS = ("segresnet", "swin_unetr", "unetr")


def monai_network(name: str, **arguments: Any) -> Any:  # noqa: ANN401 - a class of MONAI's
    """Return a network of `monai.networks.nets`, with fresh weights.

    Args:
        name: of its class.
        arguments: its own.

    Raises:
        UsageError: MONAI is not installed.
        TypeError: it does not take these arguments.
        ValueError: they contradict each other.
    """
    try:
        from monai.networks import nets
    except ImportError as error:
        raise UsageError(
            f"MONAI, which has {name}, is not installed", fix=how_to_install("peers")
        ) from error
    return getattr(nets, name)(**arguments)
