"""Architectures by name: the file `flarekit/models/x.py` is the architecture `x`.

Each such file defines `create(**arguments) -> torch.nn.Module` and `official_names(module)`, which
maps the authors' tensor names onto ours. Names are known without importing
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import PredictorError, UsageError
from flarekit.core.registry import Registry, near_miss
from flarekit.models._official import (
    load_official_state_dict,
    official_keys_of,
    official_state_dict_keys,
)
from flarekit.models._weights import load_weights, own_tensors, save_weights

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "create",
    "load_official_state_dict",
    "load_weights",
    "names",
    "official_keys_of",
    "official_state_dict_keys",
    "own_tensors",
    "save_weights",
    "without_auxiliary",
]

_REGISTRY = Registry(__name__)


def names() -> tuple[str, ...]:
    """Return the names of all architectures, sorted."""
    return _REGISTRY.names()


def create(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401 - each architecture has its own
    """Build an architecture with fresh weights.

    Args:
        name: one of `names()`.
        arguments: the architecture's own, see its module.

    Raises:
        UsageError: no such architecture.
        PredictorError: the architecture does not take these arguments.
    """
    if name not in names():
        hint = near_miss(name, names())
        raise UsageError(f"no architecture {name!r}", fix=hint)
    module = _REGISTRY.load(name)
    try:
        network: nn.Module = module.create(**arguments)
    except (TypeError, ValueError) as error:
        raise PredictorError(
            f"architecture {name!r} does not take these arguments: {error}",
            fix=f"see flarekit/models/{name}.py",
        ) from error
    return network


def without_auxiliary(
    network: nn.Module, count: int, groups: Sequence[Sequence[int]] = ()
) -> nn.Module:
    """Return a network of logits whose last `count` classes are background; itself where 0.

    Args:
        network: gives logits.
        count: of auxiliary classes.
        groups: indices among them of those that stay one class each, behind the labels.
    """
    if not count:
        return network
    from flarekit.models._auxiliary import WithoutAuxiliary

    return WithoutAuxiliary(network, count, groups)
