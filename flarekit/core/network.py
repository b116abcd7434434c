"""What network a predictor has, and the file or files that hold it or its weights."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from flarekit.core.grid import Count
from flarekit.core.tables import Table

NETWORK_FILES = ("onnx", "torchscript")  # architectures whose weights file is the network


class Architecture(Table):
    """What network it is.

    Attributes:
        name: one of `flarekit.models.names()`; `MODULE:CLASS` for a class of one's own; `onnx` or
            `torchscript` where the weights file is the network.
        arguments: that the architecture is made with; a network in a file takes none.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Weights(Table):
    """The weights file beside the facts.

    Attributes:
        file: its name.
        sha256: of its content.
        parameters: how many the network has; of a network in a file nobody needs to say.
    """

    file: Annotated[str, Field(pattern=r"^[^/\\]+$")] = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Count | None = None


def check_network(
    architecture: Architecture, weights: Sequence[Weights], auxiliary: Sequence[str]
) -> None:
    """Compare what facts say of a network.

    Raises:
        ValueError: the number of parameters is missing, or a network in a file is told what it
            cannot be told.
    """
    name = architecture.name
    if name not in NETWORK_FILES:
        if any(each.parameters is None for each in weights):
            raise ValueError("weights.parameters is missing")
        return
    if architecture.arguments:
        raise ValueError(f"architecture.arguments: a network in a file ({name}) takes none")
    if auxiliary and name == "onnx":
        raise ValueError("auxiliary classes and an ONNX file do not go together")
