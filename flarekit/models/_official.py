"""The authors' checkpoints: their tensor names, mapped onto ours, strictly.

Where the authors' names are others than ours, an architecture's file defines
`official_names(module)`, which yields each of our modules (or tensors) with the names that the
authors' code has for it: first the one under which their state dict lists it first, then its
aliases. `None` in place of our name marks keys (in full) of tensors that the authors save but never
use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from flarekit.core.errors import WeightsMismatchError
from flarekit.models._weights import own_tensors, unusable

OfficialName = tuple[str | None, tuple[str, ...]]

if TYPE_CHECKING:
    import torch
    from torch import nn


def official_state_dict_keys(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return the keys that the authors' module would have for one of `create`, aliases too."""
    used = [key for keys in official_keys_of(name, module).values() for key in keys]
    return (*used, *_unused_keys(name, module))


def load_official_state_dict(
    name: str, module: nn.Module, state_dict: Mapping[str, torch.Tensor]
) -> None:
    """Fill a module that `create` built from a state dict with the authors' names.

    Strict both ways: every tensor of theirs is used or is a known alias equal to a used one, every
    tensor of ours is set.

    Raises:
        WeightsMismatchError: listing what is missing, left over, misshapen, contradictory, or of
            another kind of number.
    """
    import torch

    own, keys_of = own_tensors(module), official_keys_of(name, module)
    known = set(official_state_dict_keys(name, module))
    faults = [f"{key} is not known" for key in state_dict if key not in known]
    found: dict[str, torch.Tensor] = {}
    for ours, keys in keys_of.items():
        present = [key for key in keys if key in state_dict]
        if not present:
            faults.append(f"{keys[0]} is missing")
            continue
        tensor = state_dict[present[0]]
        if tensor.shape != own[ours].shape:
            faults.append(f"{present[0]} is {list(tensor.shape)}, not {list(own[ours].shape)}")
        elif (fault := unusable(tensor, own[ours])) is not None:
            faults.append(f"{present[0]} {fault}")
        faults += [
            f"{alias} differs from {present[0]}"
            for alias in present[1:]
            if not torch.equal(state_dict[alias], tensor)
        ]
        found[ours] = tensor
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise WeightsMismatchError(
            f"the state dict is not {name}'s: {'; '.join(faults[:5])}{more}",
            fix="build the architecture with the arguments of that checkpoint",
        )
    with torch.no_grad():
        for ours, tensor in found.items():
            own[ours].copy_(tensor)


def shared_names(module: nn.Module) -> Iterator[OfficialName]:
    """Yield each tensor with all the names that its state dict lists it under.

    For modules whose names are the authors': tensors that are registered twice are aliases.
    """
    aliases: dict[int, list[str]] = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        aliases.setdefault(id(tensor), []).append(key)
    for keys in aliases.values():
        yield keys[0], tuple(keys)


def official_keys_of(name: str, module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the authors' keys of each of our tensors, the first one first, aliases after."""
    mapped: dict[str, tuple[str, ...]] = {}
    own = own_tensors(module)
    for ours, theirs in _official_names(name, module):
        for tensor in own:
            if ours is not None and (tensor == ours or tensor.startswith(f"{ours}.")):
                leaf = tensor[len(ours) :]
                mapped[tensor] = tuple(f"{key}{leaf}" for key in theirs)
    unmapped = sorted(own.keys() - mapped.keys())
    if unmapped:
        raise AssertionError(f"{name}: no official name for {unmapped}")
    return mapped


def _unused_keys(name: str, module: nn.Module) -> Iterator[str]:
    for ours, theirs in _official_names(name, module):
        if ours is None:
            yield from theirs


def _official_names(name: str, module: nn.Module) -> Iterator[OfficialName]:
    architecture = import_module(f"flarekit.models.{name}")
    names: Iterator[OfficialName] = getattr(architecture, "official_names", shared_names)(module)
    return names
