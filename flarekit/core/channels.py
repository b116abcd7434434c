"""What a network's input channels hold, how they are normalised, and where a scan is cropped."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flarekit.core.tables import Name, Table

_LARGEST, _SMALLEST = 1e10, 1e-8  # of what float32 still computes with, and any unit needs
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, strict=True)]
Positive = Annotated[float, Field(ge=_SMALLEST, le=_LARGEST, strict=True)]
UPTAKE_NAMES = ("PET", "PT", "SUV")  # of channels that hold standardised uptake values
_MR_NAMES = r"MRI?|T[12].*|FLAIR|DWI|ADC|PD"


class Window(Table):
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


class ZScore(Table):
    """Intensities of any unit: (x - mean) / std over the volume itself.

    Attributes:
        masked: only over what `NonzeroCrop` finds (holes filled); the rest becomes 0.
    """

    kind: Literal["z_score"]
    masked: bool = False


class Rescale(Table):
    """Intensities of any unit: the volume's minimum becomes 0, its maximum 1."""

    kind: Literal["rescale"]


class Scale(Table):
    """Intensities divided by a number; 1 leaves them as they are."""

    kind: Literal["scale"]
    divisor: Positive


class SliceZScore(Table):
    """Every slice by itself, after resampling: clip to two percentiles, then z-score."""

    kind: Literal["slice_z_score"]
    low_percentile: Annotated[float, Field(ge=0, le=100, strict=True)]
    high_percentile: Annotated[float, Field(ge=0, le=100, strict=True)]

    @model_validator(mode="after")
    def _ordered(self) -> SliceZScore:
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        return self


class SliceRescale(Table):
    """Every slice by itself, after resampling: its minimum becomes 0, its maximum 1."""

    kind: Literal["slice_rescale"]


class PercentileZScore(Table):
    """A whole volume: clip to two of its own percentiles, then (x - mean) / std.

    Attributes:
        mean: of the training set's clipped intensities; the clipped volume's own where None.
        std: their standard deviation; the clipped volume's own where None.
    """

    kind: Literal["percentile_z_score"]
    low_percentile: Annotated[float, Field(ge=0, le=100, strict=True)]
    high_percentile: Annotated[float, Field(ge=0, le=100, strict=True)]
    mean: Number | None = None
    std: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> PercentileZScore:
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std, or neither")
        return self


Intensity = Window | ZScore | Rescale | Scale | SliceZScore | SliceRescale | PercentileZScore


class Drawn(Table):
    """How clicks, scribbles or lines become a channel: of the distance d to the nearest of them.

    Attributes:
        kind: `point` is 1 in marked voxels alone; `gaussian` sums Gaussians around them, as
            nnU-Net's baselines do; `exp` is exp(-d / scale).
        scale: standard deviation of the Gaussian, or the divisor; 0 for points.
        unit: of the scale.
    """

    kind: Literal["point", "gaussian", "exp"]
    scale: Annotated[float, Field(ge=0, le=1000)] = 0.0
    unit: Literal["voxels", "mm"] = "voxels"

    @model_validator(mode="after")
    def _has_scale(self) -> Drawn:
        if (self.kind == "point") != (self.scale == 0):
            raise ValueError("points have no scale, everything else has one above 0")
        return self

    def __str__(self) -> str:
        scale = f", {self.scale:g} {self.unit}" if self.scale else ""
        return f"{self.kind}{scale}"


class Channel(Table):
    """One input channel: its name and how its intensities are normalised.

    Attributes:
        drawn: of a channel that shows clicks, scribbles or lines: how they were drawn in training.
    """

    name: Name
    intensity: Annotated[Intensity, Field(discriminator="kind")]
    drawn: Drawn | None = None

    @property
    def is_uptake(self) -> bool:
        """Whether it holds standardised uptake values, by its name."""
        return self.name.upper() in UPTAKE_NAMES

    @property
    def modality(self) -> Literal["CT", "MR", "PT"] | None:
        """DICOM's word for what it holds, by its name; None where that does not say."""
        name = self.name.upper()
        if self.is_uptake:
            return "PT"
        if name == "CT":
            return "CT"
        return "MR" if re.fullmatch(_MR_NAMES, name) else None

    @property
    def air(self) -> float:
        """Its value where there is nothing: what voxels get that are no number."""
        from flarekit.core.nifti import AIR_HU

        if self.is_uptake:
            return 0.0
        is_ct = isinstance(self.intensity, Window) and self.intensity.low_hu < 0
        return AIR_HU if is_ct or self.name.lower() == "ct" else 0.0


class BodyCrop(Table):
    """Crop to the box of the largest thing that is brighter than a threshold.

    Attributes:
        threshold: one number, of the first channel; or one per channel: then a voxel counts that
            is brighter in any of them, so that a CT that shows a part of the body does not cut the
            rest of its PET away.
        margin_mm: what is added on every side.
    """

    threshold: Number | Annotated[tuple[Number, ...], Field(min_length=1)]
    margin_mm: Annotated[float, Field(ge=0, strict=True)] = 5.0

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the crop's thresholds, one for each channel that is looked at."""
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)


class NonzeroCrop(Table):
    """Crop to the box of all voxels that are not zero in some channel (nnU-Net)."""

    kind: Literal["nonzero"]
