"""Which backends work on a device: those that have run a small scan there, in this process.

That a package is installed says little: Triton needs a C compiler at its first launch and a folder
to write to, mamba_ssm a binary that fits this PyTorch, both a device they have kernels for.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

import torch

from flarekit.models.selective_scan import _reference

_SHAPE = (2, 33, 600, 16)  # batch, channels, tokens, states: several chunks of every backend
_TOLERANCE = 1e-5  # of the largest output
_lock = threading.Lock()
_faults: dict[tuple[str, torch.device], str | None] = {}


def fault_of(backend: str, device: torch.device) -> str | None:
    """Return why a backend does not work on a device; None where it agrees with the reference.

    It is tried once per process and device.
    """
    with _lock:
        if (backend, device) not in _faults:
            _faults[backend, device] = _tried(backend, device)
        return _faults[backend, device]


def _tried(backend: str, device: torch.device) -> str | None:
    try:
        off = _error_of(backend, device)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the next backend is there
        words = str(error).strip()
        first_line = words.splitlines()[0] if words else "no reason given"
        return f"{type(error).__name__}: {first_line}"
    return None if off < _TOLERANCE else f"its outputs are off by {off:.2g} of the largest one"


def entered(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one: Triton and mamba_ssm launch there, wherever u lies."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@torch.inference_mode(mode=False)
@torch.no_grad()
def _error_of(backend: str, device: torch.device) -> float:
    """Return how far a backend's outputs are off those of the reference in float64."""
    scan = import_module(f"flarekit.models.selective_scan._{backend}").scan
    tensors = _inputs()
    expected = _reference.scan(*tensors)
    with torch.autocast(device.type, enabled=False), entered(device):
        y_BDL = scan(*(tensor.float().to(device) for tensor in tensors)).double().cpu()
    return float(((y_BDL - expected).abs().max() / expected.abs().max()).nan_to_num(torch.inf))


def _inputs() -> list[torch.Tensor]:
    batch, channels, tokens, states = _SHAPE
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        drawn(batch, channels, tokens),
        torch.nn.functional.softplus(drawn(batch, channels, tokens) - 2),
        -torch.exp(drawn(channels, states)),
        drawn(batch, states, tokens),
        drawn(batch, states, tokens),
    ]
