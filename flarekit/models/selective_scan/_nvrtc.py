"""Our CUDA kernel, compiled by NVRTC when it is first used and launched through the driver.

Neither needs a compiler, a header or a cache on disk: NVRTC is a library that PyTorch's CUDA wheels
bring along, and the driver's library is on every machine with a GPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from flarekit.models.selective_scan._gradient import differentiable
from flarekit.models.selective_scan._nvrtc_source import ITEMS, SOURCE, THREADS

_REALS = {torch.float32: ("float", "expf"), torch.float64: ("double", "exp")}
_NVRTC_MAJORS = (13, 12, 11)


class CudaError(RuntimeError):
    """NVRTC or the driver refused."""


@differentiable
def scan(*tensors: torch.Tensor) -> torch.Tensor:
    """Return y without the skip term.

    Raises:
        CudaError: NVRTC is not there or does not compile, or the driver does not launch.
    """
    inputs = [tensor.contiguous() for tensor in tensors]
    u_BDL, A_DN = inputs[0], inputs[2]
    batch, channels, tokens = u_BDL.shape
    y_BDL = torch.empty_like(u_BDL)
    if y_BDL.numel() == 0:
        return y_BDL
    device = u_BDL.device
    index = torch.cuda.current_device() if device.index is None else device.index
    kernel = _kernel(index, u_BDL.dtype, A_DN.shape[1])
    kernel.launch(
        (channels, batch),
        [*(tensor.data_ptr() for tensor in (*inputs, y_BDL)), channels, tokens],
        torch.cuda.current_stream(index).cuda_stream,
    )
    return y_BDL


@cache
def _kernel(index: int, dtype: torch.dtype, states: int) -> _Kernel:
    capability = torch.cuda.get_device_capability(index)
    return _Kernel(index, compile_scan(capability, dtype, states))


def compile_scan(capability: tuple[int, int], dtype: torch.dtype, states: int) -> bytes:
    """Compile the kernel for a device: machine code, or PTX where NVRTC is older than the device.

    Args:
        capability: of the device, such as (9, 0).
        dtype: float32 or float64.
        states: per channel.

    Raises:
        CudaError: NVRTC is not there or does not compile.
    """
    real, exp = _REALS[dtype]
    own, known = 10 * capability[0] + capability[1], _architectures()
    is_native = own in known
    architecture = f"sm_{own}" if is_native else f"compute_{max(each for each in known)}"
    options = [
        f"--gpu-architecture={architecture}",
        f"-DREAL={real}",
        f"-DEXP={exp}",
        f"-DSTATES={states}",
        f"-DTHREADS={THREADS}",
        f"-DITEMS={ITEMS}",
    ]
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    _check_nvrtc(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), SOURCE.encode(), b"selective_scan.cu", 0, None, None
        )
    )
    try:
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), words)
        if status:
            log = _fetched(program, "ProgramLog").rstrip(b"\0\n").decode(errors="replace")
            raise CudaError(f"NVRTC does not compile the scan for {architecture}: {log}")
        return _fetched(program, "CUBIN" if is_native else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _fetched(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check_nvrtc(getattr(_nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check_nvrtc(getattr(_nvrtc(), f"nvrtcGet{what}")(program, content))
    return content.raw


@cache
def _architectures() -> tuple[int, ...]:
    """Return the architectures that NVRTC knows, such as 90."""
    count = ctypes.c_int()
    _check_nvrtc(_nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    known = (ctypes.c_int * count.value)()
    _check_nvrtc(_nvrtc().nvrtcGetSupportedArchs(known))
    return tuple(known)


def _check_nvrtc(status: int) -> None:
    if status:
        _nvrtc().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CudaError(f"NVRTC: {_nvrtc().nvrtcGetErrorString(status).decode()}")


@cache
def _nvrtc() -> ctypes.CDLL:
    for candidate in _candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue
        for beside in sorted(Path(candidate).parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(beside))  # NVRTC opens it by its bare name, which finds it loaded
        return library
    raise CudaError("libnvrtc.so is not there; PyTorch's CUDA wheels need nvidia-cuda-nvrtc")


def _candidates() -> Iterator[str]:
    """Yield where NVRTC may lie, that of PyTorch's own CUDA version first."""
    own = int((torch.version.cuda or "0").split(".")[0])
    majors = [own, *(major for major in _NVRTC_MAJORS if major != own)]
    names = [f"libnvrtc.so.{major}" for major in majors]
    packages = find_spec("nvidia")
    folders = [Path(place) for place in (packages and packages.submodule_search_locations) or ()]
    for name in names:
        yield from (str(path) for folder in folders for path in folder.glob(f"*/lib/{name}*"))
        yield from (str(path) for path in (Path(torch.__file__).parent / "lib").glob(f"{name}*"))
        yield name
    toolkit = os.environ.get("CUDA_HOME")
    if toolkit:
        yield str(Path(toolkit) / "lib64" / "libnvrtc.so")


class _Kernel:
    """A compiled scan, loaded into the context that PyTorch uses on a device."""

    def __init__(self, index: int, code: bytes) -> None:
        self._driver = _driver()
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        self._enter()
        try:
            self._call("cuModuleLoadData", ctypes.byref(module), code)
            self._call(
                "cuModuleGetFunction", ctypes.byref(self._function), module, b"selective_scan"
            )
        finally:
            self._leave()

    def launch(self, grid: tuple[int, int], arguments: list[int], stream: int) -> None:
        """Launch on a stream: six pointers, then numbers."""
        pointers = [ctypes.c_void_p(argument) for argument in arguments[:6]]
        values = [*pointers, *(ctypes.c_int(argument) for argument in arguments[6:])]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self._enter()
        try:
            self._call(
                "cuLaunchKernel", self._function, *grid, 1, THREADS, 1, 1, 0,
                ctypes.c_void_p(stream), addresses, None,
            )  # fmt: skip
        finally:
            self._leave()

    def _enter(self) -> None:
        """Make PyTorch's context current, which it need not be in a thread that just began."""
        self._call("cuCtxPushCurrent_v2", self._context)

    def _leave(self) -> None:
        self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            words = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(words))
            reason = words.value.decode() if words.value else f"error {status}"
            raise CudaError(f"{name}: {reason}")


@cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(f"the driver's library cannot be opened: {error}") from error
