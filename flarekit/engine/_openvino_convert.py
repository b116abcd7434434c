"""A network from PyTorch to OpenVINO, the selective scan of Mamba included.

The networks say themselves what is special about them: a module whose class has `operation =
"selective_scan"` is replaced by operations of OpenVINO, and one whose class has `float32_island`
keeps float32 where the rest is compiled for half precision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
import torch
from openvino.frontend.pytorch import ConversionExtension, ModuleExtension
from torch import nn

from flarekit.engine._openvino_scan import ScanShape, keep_float32, selective_scan

_SCAN = "selective_scan"


def to_openvino(network: nn.Module, input_shape: tuple[int, ...]) -> openvino.Model:
    """Convert a network as it is in evaluation; it is left as it was.

    Args:
        network: on the CPU, from a float32 image to logits, or to a list or pair that begins with
            them.
        input_shape: (B, C, Z, Y, X) or (B, C, Y, X), all sizes fixed.

    Returns:
        A model with one float32 input and one float32 output, its weights its own. Compiled with
        `INFERENCE_PRECISION_HINT` bf16 it computes scans and float32 islands in float32.
    """
    wrapped = _FirstOutput(network)
    extensions = [each for scan in _scans(wrapped) for each in scan.extensions()]
    with _as_in_evaluation(wrapped), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO traces
        model = openvino.convert_model(
            wrapped,
            example_input=torch.zeros(input_shape),
            input=[(openvino.PartialShape(list(input_shape)), openvino.Type.f32)],
            extension=extensions or None,
        )
    islands = tuple(f"__module.{name}" for name, module in _modules(wrapped) if _is_island(module))
    for node in model.get_ops():
        if _inside(node.friendly_name, islands):
            keep_float32(node)
    return _read_again(model)


class _FirstOutput(nn.Module):
    """A network's logits: the finest where it has several, without the image that it redraws."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output = self.network(image)
        while isinstance(output, list | tuple):
            output = output[0]
        logits: torch.Tensor = output
        return logits


class _Scan:
    """One module of a network that scans: its sizes are seen when the network is traced."""

    def __init__(self, module: nn.Module, name: str, index: int) -> None:
        self._module = module
        self._name = name
        self._operation = f"flarekit::{_SCAN}_{index}"
        self._shape: ScanShape | None = None

    def extensions(self) -> tuple[ModuleExtension, ConversionExtension]:
        """Return what replaces the module by one operation, and that by many of OpenVINO's."""
        return (
            ModuleExtension(
                self._module, self._operation, evaluate=self._trace, convert=_without_options
            ),
            ConversionExtension(self._operation, self._convert),
        )

    def _trace(self, _: nn.Module, *tensors: torch.Tensor, **__: object) -> torch.Tensor:
        u_BDL, _delta_BDL, A_DN, *_rest = tensors
        batch, channels, tokens = (int(n) for n in u_BDL.shape)
        self._shape = ScanShape(
            batch=batch, channels=channels, states=int(A_DN.shape[1]), tokens=tokens
        )
        return torch.zeros_like(u_BDL)

    def _convert(self, context: openvino.frontend.NodeContext) -> list[openvino.Output]:
        assert self._shape is not None
        inputs = [context.get_input(index) for index in range(6)]
        y_BDL = selective_scan(*inputs, shape=self._shape)
        _name_all(y_BDL, inputs, f"__module.{self._name}/{_SCAN}")
        outputs: list[openvino.Output] = y_BDL.outputs()
        return outputs


def _without_options(
    _: nn.Module, operation: object, *tensors: torch.Tensor, **__: object
) -> object:
    return operation(*tensors)


def _scans(network: nn.Module) -> list[_Scan]:
    scans = {
        module: name
        for name, module in network.named_modules()
        if getattr(type(module), "operation", None) == _SCAN
    }
    return [_Scan(module, name, index) for index, (module, name) in enumerate(scans.items())]


def _modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules by all their names: OpenVINO may know one by any of them."""
    return network.named_modules(remove_duplicate=False)


def _is_island(module: nn.Module) -> bool:
    return bool(getattr(type(module), "float32_island", False))


def _inside(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith((f"{prefix}.", f"{prefix}/")) for prefix in prefixes)


def _name_all(last: openvino.Node, inputs: list[openvino.Output], name: str) -> None:
    """Name the operations that lead from inputs to a last one."""
    known = {each.get_node().get_name() for each in inputs}
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node.get_name() in known:
            continue
        known.add(node.get_name())
        node.friendly_name = f"{name}/{node.get_name()}"
        waiting.extend(each.get_source_output().get_node() for each in node.inputs())


@contextmanager
def _as_in_evaluation(network: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, was in training:
            module.training = was


def _read_again(model: openvino.Model) -> openvino.Model:
    """Write and read a model: marks on operations begin to count, and its weights are its own."""
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    with TemporaryDirectory(prefix="flarekit-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return core.read_model(path)
