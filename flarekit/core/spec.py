"""The facts of a predictor, as `predictor.toml` states them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flarekit.core.errors import PredictorError

Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Architecture(_Facts):
    """A name in `flarekit.models` and the arguments its `create` takes."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Window(_Facts):
    """CT intensities: clip to [low_hu, high_hu], then (x - mean) / std."""

    kind: Literal["window"] = "window"
    low_hu: Number
    high_hu: Number
    mean: Number
    std: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low_hu >= self.high_hu:
            raise ValueError("low_hu must be below high_hu")
        return self


class ZScore(_Facts):
    """Intensities of any unit: (x - mean) / std over the volume itself."""

    kind: Literal["z_score"]


class Channel(_Facts):
    """One input channel: its name and how its intensities are normalised."""

    name: str
    intensity: Annotated[Window | ZScore, Field(discriminator="kind")]


class BodyCrop(_Facts):
    """Crop to the box of the largest thing brighter than `threshold` (first channel)."""

    threshold: Number
    margin_mm: Annotated[float, Field(ge=0, strict=True)] = 5.0


class Grid(_Facts):
    """The network's voxel grid and how the window slides over it.

    Attributes:
        spacing_mm_ZYX: voxel spacing of the network's input, oriented axes.
        tile_ZYX: voxels per tile; Z = 1 means that the network is 2D and sees axial slices.
        step: distance between tiles as a fraction of the tile, in (0, 1].
    """

    spacing_mm_ZYX: tuple[Positive, Positive, Positive]
    tile_ZYX: tuple[Count, Count, Count]
    step: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.5


class Rule(_Facts):
    """A post-processing rule: its name in `flarekit.postprocess`, labels (by name) and value."""

    name: str
    labels: tuple[str, ...]
    value: Number | None = None


class Weights(_Facts):
    """The weights file beside the facts."""

    file: Annotated[str, Field(pattern=r"^[^/\\]+$")] = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Count


class PredictorSpec(_Facts):
    """Everything about a predictor but the weights themselves.

    Attributes:
        labels: label name -> value in the mask, 1..255; background is 0 and not listed. The
            network's class k is the k-th label in order of value, class 0 the background.
        provenance: where the weights come from (data, licence, command, date), for the card.
    """

    name: str
    title: str
    convention: str
    architecture: Architecture
    channels: tuple[Channel, ...] = Field(min_length=1)
    crop: BodyCrop | None = None
    grid: Grid
    labels: dict[str, Annotated[int, Field(ge=1, le=255, strict=True)]] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    weights: Weights
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PredictorSpec:
        if len(set(self.labels.values())) != len(self.labels):
            raise ValueError("two labels share one value")
        for rule in self.rules:
            unknown = sorted(set(rule.labels) - set(self.labels))
            if unknown:
                raise ValueError(f"rule {rule.name!r} names unknown labels {unknown}")
        return self

    @property
    def class_values(self) -> tuple[int, ...]:
        """Mask value of each network class, background first."""
        return (0, *sorted(self.labels.values()))


@dataclass(frozen=True, kw_only=True)
class PredictorFolder:
    """A predictor on disk: its facts and where its files are."""

    folder: Path
    spec: PredictorSpec
    card: Path = field(init=False)
    weights: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "card", self.folder / "CARD.md")
        object.__setattr__(self, "weights", self.folder / self.spec.weights.file)


def parse_spec(content: Mapping[str, Any], *, source: str) -> PredictorSpec:
    """Check and type the content of a `predictor.toml`.

    Raises:
        PredictorError: naming the fields that are missing, unknown or out of range, three at most.
    """
    try:
        return PredictorSpec.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'the whole'}: {fault['msg']}"
            for fault in error.errors()[:3]
        ]
        raise PredictorError(f"{source}: {'; '.join(faults)}", fix="correct that") from error


def read_spec(folder: Path) -> PredictorFolder:
    """Read `predictor.toml` in a folder.

    Raises:
        PredictorError: no such file, not TOML, or facts that do not hold together.
    """
    path = folder / "predictor.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PredictorError(
            f"{path}: cannot be read: {error.strerror}", fix="name a folder with a predictor.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PredictorError(f"{path}: is not TOML: {error}", fix="correct that line") from error
    return PredictorFolder(folder=folder, spec=parse_spec(content, source=str(path)))
