"""Networks of MONAI (extra `peers`) that the papers compare theirs with; imported where built."""

from typing import Any

from flarekit.core.extras import require

PEERS = ("segresnet", "swin_unetr", "unetr")


def monai_network(name: str, **arguments: Any) -> Any:  # noqa: ANN401 - a class of MONAI's
    """Return a network of `monai.networks.nets` by the name of its class, with fresh weights.

    Raises:
        UsageError: MONAI is not installed.
        TypeError: it does not take these arguments.
        ValueError: they contradict each other.
    """
    require("monai", "peers", f"MONAI, which has {name}, is not installed")
    from monai.networks import nets

    return getattr(nets, name)(**arguments)
