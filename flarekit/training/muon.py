"""Muon: momentum whose matrices are made orthogonal, for few steps on small machines.

Source: K. Jordan et al., Muon, https://kellerjordan.github.io/posts/muon (2024); the size of an
update is that of J. Liu et al., Muon is Scalable for LLM Training, arXiv:2502.16982, section 2.2.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

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
            with_gradient = [each for each in group["params"] if each.grad is not None]
            if with_gradient:
                change(with_gradient, group)

    def _muon(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        means = [self._kept(parameter, "mean") for parameter in parameters]
        gradients = [gradient_of(parameter) for parameter in parameters]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])  # noqa: SLF001
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # noqa: SLF001
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])  # noqa: SLF001
        alike: dict[torch.Size, list[int]] = {}
        for index, update in enumerate(ahead):
            alike.setdefault(update.flatten(1).shape, []).append(index)
        for shape, indices in alike.items():
            matrices = orthogonal(torch.stack([ahead[index].flatten(1) for index in indices]))
            step = -group["lr"] * _ADAM_RMS * max(shape) ** 0.5
            for index, matrix in zip(indices, matrices, strict=True):
                parameters[index].add_(matrix.view_as(parameters[index]), alpha=step)

    def _adam(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        steps = [self.state[each].setdefault("steps", torch.zeros(())) for each in parameters]
        adam(
            parameters,
            [gradient_of(parameter) for parameter in parameters],
            [self._kept(parameter, "mean") for parameter in parameters],
            [self._kept(parameter, "square") for parameter in parameters],
            [],
            steps,
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=_EPS,
            maximize=False,
        )

    def _kept(self, parameter: torch.Tensor, name: str) -> torch.Tensor:
        """Return a running mean of a parameter, of zeros at first."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        kept: torch.Tensor = state[name]
        return kept


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return about the nearest matrix (..., M, N) whose singular values are all 1.

    Five Newton-Schulz iterations; the singular values come out between 0.7 and 1.2. What each of
    them multiplies the matrix by is a polynomial of its Gram matrix, whose side is the shorter one:
    these are multiplied with each other, and with the matrix once at the end. In float32, which
    products of products need, and because CPUs without bfloat16 take many times as long for it.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram, product = x @ x.mT, torch.eye(x.shape[-2], device=x.device)
    for step in range(steps):
        factor = b * gram + c * gram @ gram
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    x = product @ x
    evened: torch.Tensor = (x.mT if tall else x).to(matrix.dtype)
    return evened


def _is_matrix(parameter: nn.Parameter) -> bool:
    rows = len(parameter) if parameter.ndim > 1 else 0
    return rows > 0 and min(rows, parameter.numel() // rows) >= _LEAST_SIDE
