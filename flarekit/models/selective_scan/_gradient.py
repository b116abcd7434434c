"""Gradients of a kernel that has only a forward: those of the chunked scan, computed again."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from flarekit.models.selective_scan import _chunked

Scan = Callable[..., torch.Tensor]


def differentiable(forward: Scan) -> Scan:
    """Return a scan with gradients where they are wanted, given one without."""

    @wraps(forward)
    def scan(*tensors: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return forward(*tensors)
        y: torch.Tensor = _Scan.apply(forward, *tensors)  # type: ignore[no-untyped-call]
        return y

    return scan


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        forward: Scan,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        with torch.enable_grad():
            tensors = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
            y = _chunked.scan(*tensors)
        return (None, *torch.autograd.grad(y, tensors, gradients[0]))
