"""Muon: momentum whose matrices are made orthogonal, for few steps on small machines.

Source: K. Jordan et al., Muon, https://kellerjordan.github.io/posts/muon (2024); the size of an
update is that of J. Liu et al., Muon is Scalable for LLM Training, arXiv:2502.16982, section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values to about 1 in five steps
_ADAM_RMS = 0.2  # of an update of Adam, so that both take the same learning rate
_LEAST_SIDE = 8  # of a matrix; narrower ones have no directions to even out
_EPS = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon over weights of convolutions and linear layers, Adam over every other parameter.

    A weight (out, in, ...) is taken as a matrix (out, in * ...). Unlike `torch.optim.Muon` it takes
    convolutions, and a network's parameters as they come.

    Args:
        parameters: of a network.
        lr: learning rate of both parts.
        weight_decay: decoupled, of the matrices.
        momentum: Nesterov's, of the matrices.
        betas: of Adam.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        everything = list(parameters)
        matrices = [parameter for parameter in everything if _is_matrix(parameter)]
        others = [parameter for parameter in everything if not _is_matrix(parameter)]
        super().__init__(
            [{"params": matrices, "kind": "muon"}, {"params": others, "kind": "adam"}],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas},
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            change = self._muon if group["kind"] == "muon" else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change(parameter, parameter.grad, group)

    def _muon(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(mean, group["momentum"]).flatten(1)
        size = _ADAM_RMS * max(matrix.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonal(matrix).view_as(parameter), alpha=-group["lr"] * size)

    def _adam(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
            state["steps"] = torch.zeros(())
        state["steps"] += 1
        steps = float(state["steps"])
        of_mean, of_square = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - of_mean) / (1 - of_mean**steps)
        square = state["square"].lerp_(gradient.square(), 1 - of_square) / (1 - of_square**steps)
        parameter.addcdiv_(mean, square.sqrt() + _EPS, value=-group["lr"])


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return about the nearest matrix (M, N) whose singular values are all 1.

    Newton-Schulz iterations in bfloat16; the singular values come out between 0.7 and 1.2.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= _LEAST_SIDE
