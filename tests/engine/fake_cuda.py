"""A CUDA device without one: tensors that have a device, a shape and a type, and no contents.

What would fail on a real one raises: two devices in one operation, weights and inputs of different
types, and a look at a value in the middle of what is launched, which would wait for the device.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from flarekit.engine import _torch_device, _torch_networks, _torch_sums
from flarekit.engine import torch as torch_engine

CUDA = torch.device("cuda", 0)
_TOTAL_MIB = 80_000


@contextmanager
def fake_cuda(monkeypatch):
    """Let `cuda:0` be a device of tensors without contents; of an H100's capability."""
    properties = SimpleNamespace(total_memory=_TOTAL_MIB * 2**20, uuid="0")
    answers = {
        "is_available": lambda: True,
        "get_device_name": lambda _device: "a card",
        "get_device_capability": lambda _device: (9, 0),
        "get_device_properties": lambda _device: properties,
        "memory_allocated": lambda _device: 0,
        "max_memory_allocated": lambda _device: 2**20,
        "reset_peak_memory_stats": lambda _device: None,
        "memory_reserved": lambda _device: 0,
        "mem_get_info": lambda _device: (_TOTAL_MIB * 2**20, _TOTAL_MIB * 2**20),
        "set_per_process_memory_fraction": lambda _share, _device: None,
        "empty_cache": lambda: None,
        "device": lambda _device: nullcontext(),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch_engine, "Answer", _Unknown)
    monkeypatch.setattr(_torch_sums.TorchSums, "finite", lambda *_: True)
    monkeypatch.setattr(_torch_device, "opening_fault", lambda _device: None)
    monkeypatch.setattr(_torch_networks, "copy", SimpleNamespace(deepcopy=_copied))
    monkeypatch.setattr(nn.Module, "to", _moved)
    # these enter a tensor's device before they do anything, and a CPU's PyTorch has no such device
    monkeypatch.setattr(torch.Tensor, "contiguous", _contiguous)
    monkeypatch.setattr(torch.Tensor, "__getitem__", _item)
    monkeypatch.setattr(torch.Tensor, "__setitem__", _put)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, *_, **__: self)
    numpy = torch.Tensor.numpy
    monkeypatch.setattr(
        torch.Tensor, "numpy", lambda self: _blank(self) if _is_fake(self) else numpy(self)
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield CUDA


class _Unknown:
    """Whether something is true on a device that has no contents: it is."""

    def __init__(self, flag: torch.Tensor) -> None:
        assert flag.device == CUDA

    def __bool__(self) -> bool:
        return True


def _item(tensor, index):
    """Return a part of a tensor, as `tensor[index]` does."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, torch.Tensor) for part in parts):
        return torch.ops.aten.index.Tensor(tensor, list(parts))
    missing = tensor.ndim - sum(part is not None and part is not ... for part in parts)
    if ... in parts:
        at = parts.index(...)
        parts = (*parts[:at], *[slice(None)] * missing, *parts[at + 1 :])
    axis = 0
    for part in parts:
        if part is None:
            tensor = tensor.unsqueeze(axis)
        elif isinstance(part, slice):
            first, end, step = part.indices(tensor.shape[axis])
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, first, max(first, end), step)
        else:
            tensor = tensor.select(axis, part)
            continue
        axis += 1
    return tensor


def _put(tensor, index, value):
    """Look whether `tensor[index] = value` can be done; there is nothing to set."""
    part = _item(tensor, index)
    if isinstance(value, torch.Tensor) and value.ndim:
        assert value.device == part.device
        assert torch.broadcast_shapes(value.shape, part.shape) == part.shape


def _contiguous(tensor, memory_format=torch.contiguous_format):
    """Return a tensor in a layout, as `Tensor.contiguous` does."""
    is_so = tensor.is_contiguous(memory_format=memory_format)
    return tensor if is_so else tensor.clone(memory_format=memory_format)


def _is_fake(tensor):
    return isinstance(tensor, FakeTensor)


def _blank(tensor):
    assert tensor.device.type == "cpu", "numpy() of a tensor on a device"
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def _copied(module):
    """Copy a module that is on the host."""
    with unset_fake_temporarily():
        return copy.deepcopy(module)


def _moved(module, device=None, *, memory_format=None):
    """Move a module as `Module.to` does, which does not take tensors without contents."""
    for each in module.modules():
        for name, tensor in [*each._parameters.items(), *each._buffers.items()]:
            if tensor is None:
                continue
            there = torch.empty(tensor.shape, dtype=tensor.dtype, device=device or tensor.device)
            if memory_format is not None and there.ndim == {
                torch.channels_last: 4,
                torch.channels_last_3d: 5,
            }.get(memory_format):
                there = there.contiguous(memory_format=memory_format)
            if name in each._parameters:
                each._parameters[name] = nn.Parameter(there, requires_grad=False)
            else:
                each._buffers[name] = there
    return module
