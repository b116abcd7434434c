"""What memory a network takes, from shapes alone: nothing is computed or allocated.

The network is run on tensors without contents, as PyTorch's own tools do; every storage counts from
where an operation makes it until nothing refers to it any more.
"""

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flarekit.engine._cpu import cpu_capability
from flarekit.engine._torch_device import DTYPES

_FEW_CHANNELS = 4  # oneDNN reads fewer as they are


@torch.no_grad()
def estimated_mib(
    network: nn.Module,
    shape: tuple[int, ...],
    device: torch.device,
    precision: str,
    layout: torch.memory_format,
) -> float:
    """Return the most memory that the forward of a network takes beside its weights, in MiB.

    The network is on the device, as it would run; shape and layout are those of its input.

    What a library takes inside an operation is known of convolutions on a CPU only.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    counting = _Counting()
    with FakeTensorMode(allow_non_fake_inputs=True):
        blank = torch.empty(shape, device=device).contiguous(memory_format=layout)
        half = torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
        with counting, half:
            network(blank)
    return counting.peak / 2**20


class _Counting(TorchDispatchMode):
    """Adds up the storages that operations make.

    Attributes:
        peak: most bytes at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._alive: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operation of PyTorch
        types: Sequence[type],  # noqa: ARG002
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        outcome = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outcome):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        if func is torch.ops.aten.convolution.default:
            self.peak = max(self.peak, self._now + _inside_convolution(outcome, *args))
        return outcome

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 - its identity
        if key not in self._alive:
            self._now += size
            self.peak = max(self.peak, self._now)
            self._alive[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._now -= size
        del self._alive[key]


def _inside_convolution(
    output: torch.Tensor,
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *settings: Any,  # noqa: ANN401 - stride, padding, dilation, transposed, output padding, groups
) -> int:
    """Return the bytes that a convolution takes while it runs, beside its output.

    On a CPU oneDNN copies the input where it is not in the layout it works in, and makes the output
    twice where that is not channels last, in float32 with channels in whole registers; PyTorch's
    own code writes the voxels under the kernel side by side.
    """
    if output.device.type != "cpu":
        return 0
    sizes = None if bias is None else list(bias.shape)
    backend = str(torch._C._select_conv_backend(image, weight, bias, *settings, sizes))  # noqa: SLF001 - no other way to ask
    under = math.prod(weight.shape[1:])  # of a transposed one: output channels times kernel
    if "Slow" in backend:
        if "Transpose" in backend:
            return under * math.prod(image.shape[2:]) * image.itemsize
        is_pointwise = math.prod(weight.shape[2:]) == 1
        return 0 if is_pointwise else under * output[:, 0].numel() * image.itemsize
    copied = 0 if _is_channels_last(image) else _blocked_bytes(image)
    again = 0 if _is_channels_last(output) else _blocked_bytes(output)
    whole = output.numel() * output.itemsize
    return max(copied + weight.numel() * weight.itemsize + max(0, again - whole), again)


def _blocked_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor in oneDNN's own layout: channels in blocks, but few in float32.

    Half precisions have their channels last there, as they are.
    """
    channels, size = tensor.shape[1], tensor.numel() * tensor.itemsize
    if tensor.itemsize < torch.float32.itemsize or channels < _FEW_CHANNELS:
        return size
    block = 16 if "avx512f" in cpu_capability() else 8
    return size // channels * (math.ceil(channels / block) * block)


def _is_channels_last(tensor: torch.Tensor) -> bool:
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    return layout is not None and tensor.is_contiguous(memory_format=layout)
