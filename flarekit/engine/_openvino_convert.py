"""A network from PyTorch to OpenVINO, the selective scan of Mamba included.

The networks say themselves what is special about them: a module whose class has `operation =
"selective_scan"` is replaced by operations of OpenVINO, and one whose class has `float32_island`
keeps float32 where the rest is compiled for half precision.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
import torch
from openvino import opset15 as ops
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension, ModuleExtension
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # exported, but not listed

from flarekit.engine._openvino_scan import ScanShape, keep_float32, selective_scan

_SCAN = "selective_scan"

_Operation = Callable[..., torch.Tensor]


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
    model = _converted(wrapped, input_shape)
    islands = tuple(  # by all names of each: OpenVINO may know it by any
        f"__module.{name}"
        for name, module in wrapped.named_modules(remove_duplicate=False)
        if getattr(type(module), "float32_island", False)
    )
    for node in model.get_ops():
        if _inside(node.friendly_name, islands):
            keep_float32(node)
            if node.get_type_name() == "MatMul":
                _turn(node)
    return _read_again(model)


def _converted(network: nn.Module, input_shape: tuple[int, ...]) -> openvino.Model:
    """Do what `openvino.convert_model` does, but trace once, not three times, and tell nobody.

    (`convert_model` sends statistics of the conversion home.)
    """
    scans = _scans(network)
    with _as_in_evaluation(network), warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)  # all sizes are fixed
        for category in (DeprecationWarning, FutureWarning):  # of TorchScript, by torch's version
            warnings.filterwarnings("ignore", "`torch.jit", category)
        traced = TorchScriptPythonDecoder(
            network,
            example_input=torch.zeros(input_shape),
            module_extensions={scan.module: scan.replacement() for scan in scans},
            trace_kwargs={"check_trace": False},
        )
    frontend = FrontEndManager().load_by_framework("pytorch")
    for scan in scans:
        frontend.add_extension(scan.conversion())
    model = frontend.convert(frontend.load(traced))
    model.reshape(list(input_shape))
    apply_moc_transformations(model, cf=True)
    return model


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
        self.module = module
        self._name = name
        self._operation = f"flarekit::{_SCAN}_{index}"
        self._shape: ScanShape | None = None

    def replacement(self) -> ModuleExtension:
        """Return what replaces the module by one operation."""
        return ModuleExtension(
            self.module, self._operation, evaluate=self._trace, convert=_without_options
        )

    def conversion(self) -> ConversionExtension:
        """Return what replaces that by operations of OpenVINO."""
        return ConversionExtension(self._operation, self._convert)

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
    _: nn.Module, operation: _Operation, *tensors: torch.Tensor, **__: object
) -> torch.Tensor:
    return operation(*tensors)


def _scans(network: nn.Module) -> list[_Scan]:
    scans = {
        module: name
        for name, module in network.named_modules()
        if getattr(type(module), "operation", None) == _SCAN
    }
    return [_Scan(module, name, index) for index, (module, name) in enumerate(scans.items())]


def _inside(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith((f"{prefix}.", f"{prefix}/")) for prefix in prefixes)


def _turn(product: openvino.Node) -> None:
    """Replace f(x W' + b) by f(W x' + b)' where the CPU plugin would lose the mark of float32.

    It does where it joins a product with its bias, or moves a transposition through it or `f`.
    """
    x, weights = (each.get_source_output() for each in product.inputs())
    attributes = product.get_attributes()
    last, bias = product, None
    following = _only_follower(last)
    if following is not None and (bias := _bias(following)) is not None:
        last, following = following, _only_follower(following)
    if len(x.shape) != 3 or not (attributes["transpose_a"] or bias is not None):
        return
    made = [ops.matmul(weights, x, not attributes["transpose_b"], not attributes["transpose_a"])]
    if bias is not None:
        made += [column := openvino.op.Constant(bias.data.reshape(1, -1, 1))]
        made += [ops.add(made[0], column)]
    if following is not None and following.get_type_name() == "SoftPlus":
        last = following
        made += [ops.softplus(made[-1])]
    made += [ops.transpose(made[-1], np.array([0, 2, 1], np.int64))]
    for node in made:
        node.friendly_name = f"{last.friendly_name}/{node.get_type_name()}"
        keep_float32(node)
    for each in last.output(0).get_target_inputs():
        each.replace_source_output(made[-1].output(0))


def _only_follower(node: openvino.Node) -> openvino.Node | None:
    followers = [each.get_node() for each in node.output(0).get_target_inputs()]
    return followers[0] if len(followers) == 1 else None


def _bias(node: openvino.Node) -> openvino.op.Constant | None:
    """Return what a node adds to a product's last axis, where it does just that."""
    if node.get_type_name() != "Add":
        return None
    constants = [
        source
        for each in node.inputs()
        if isinstance(source := each.get_source_output().get_node(), openvino.op.Constant)
    ]
    width = node.output(0).shape[-1]
    if len(constants) != 1 or constants[0].data.size != width:
        return None
    return constants[0] if constants[0].data.shape[-1] == width else None


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
    """Switch to evaluation; then undo that, and what OpenVINO leaves in modules it replaced."""
    before = [(module, dict(vars(module))) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def _read_again(model: openvino.Model) -> openvino.Model:
    """Write and read a model: marks on operations begin to count, and its weights are its own."""
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    with TemporaryDirectory(prefix="flarekit-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return core.read_model(path)
