"""A TorchScript file as a network."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekit.core.errors import PredictorError


class Program(nn.Module):
    """A TorchScript program in a module, which takes what a program does not: freezing, say."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, image: torch.Tensor) -> Any:  # noqa: ANN401 - whatever it gives
        """Run it."""
        return self.program(image)


def load_torchscript(path: Path) -> nn.Module:
    """Load a TorchScript program on the CPU.

    Raises:
        PredictorError: it is none, or made by another version of torch.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the format, told in the docs
            return Program(torch.jit.load(str(path), map_location="cpu"))
    except (RuntimeError, ValueError) as error:
        raise PredictorError(
            f"{path}: is not a TorchScript file that this torch reads: "
            f"{str(error).strip().splitlines()[0]}",
            fix="save it with torch.jit.save(torch.jit.script(network), path)",
        ) from error
