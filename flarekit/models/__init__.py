"""Architectures by name: the file `flarekit/models/x.py` is the architecture `x`.

Each such file defines `create(**arguments) -> torch.nn.Module`, and `official_names(module)` where
the authors have other names for its tensors. Names are known without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import FlarekitError, PredictorError, UsageError
from flarekit.core.network import Architecture
from flarekit.core.registry import Registry, near_miss
from flarekit.models._bounded import TooLargeError, at_most
from flarekit.models._monai import PEERS
from flarekit.models._official import (
    load_official_state_dict,
    official_keys_of,
    official_state_dict_keys,
)
from flarekit.models._own import (
    OwnClass,
    UntrustedError,
    create_installed,
    installed,
)
from flarekit.models._weights import (
    WeightsState,
    check_weights,
    load_weights,
    own_tensors,
    save_weights,
    weights_state,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PEERS",
    "OwnClass",
    "TooLargeError",
    "UntrustedError",
    "WeightsState",
    "at_most",
    "build",
    "built_in",
    "check_weights",
    "create",
    "load_official_state_dict",
    "load_weights",
    "names",
    "official_keys_of",
    "official_state_dict_keys",
    "own_tensors",
    "save_weights",
    "weights_state",
    "without_auxiliary",
]

_REGISTRY = Registry(__name__)


def names() -> tuple[str, ...]:
    """Return the names of all architectures, those of installed packages included, sorted."""
    return tuple(sorted({*built_in(), *installed()}))


def built_in() -> tuple[str, ...]:
    """Return the names of the architectures of this package, sorted."""
    return _REGISTRY.names()


def build(architecture: Architecture, folder: Path | None, *, trusted: bool) -> nn.Module:
    """Build the network that facts name, with fresh weights.

    Args:
        architecture: a name of `names()`, or `MODULE:CLASS`, and its arguments.
        folder: of the facts; a module beside them goes before installed ones.
        trusted: somebody has said that a class of the folder's choice may be executed.

    Raises:
        UntrustedError: it is such a class, and nobody has said so.
        PredictorError: the class cannot be imported, or does not take these arguments.
        UsageError: no such architecture.
    """
    own = OwnClass.of(architecture.name, folder)
    if own is None:
        return create(architecture.name, **architecture.arguments)
    if not trusted:
        raise UntrustedError(
            f"{folder or 'the facts'}: the architecture {architecture.name} would {own.told()}",
            fix="read it, then add --trust (in Python: trust=True) if you trust it",
        )
    return _made(own.load(), architecture.name, architecture.arguments, str(own.file or own.module))


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
    if name in built_in():
        return _made(_REGISTRY.load(name).create, name, arguments, f"flarekit/models/{name}.py")
    return _made(create_installed(name), name, arguments, installed()[name].value)


def _made(
    make: Callable[..., nn.Module], name: str, arguments: dict[str, Any], place: str
) -> nn.Module:
    from torch import nn

    try:
        network = make(**arguments)
    except (FlarekitError, TooLargeError):
        raise
    except Exception as error:  # of whatever an architecture does with its arguments
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise PredictorError(
            f"architecture {name!r} does not take these arguments: {reason}", fix=f"see {place}"
        ) from error
    if not isinstance(network, nn.Module):
        raise PredictorError(
            f"architecture {name!r} gives a {type(network).__name__}, not a torch.nn.Module",
            fix=f"see {place}",
        )
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
