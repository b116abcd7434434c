"""What rules may know of the scan that a label map belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import PredictorError


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan as stored.

    Attributes:
        spacing_mm_ZYX: distance between neighbouring voxels.
        channels: channel name, as the predictor has it -> voxels on the label map's grid, in the
            unit of the file (HU, SUV).
        points: what somebody marked -> (N, 3) int64 indices (z, y, x) of voxels; empty mostly.
    """

    spacing_mm_ZYX: tuple[float, float, float]
    channels: Mapping[str, NDArray[Any]]
    points: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def channel(self, name: str) -> NDArray[Any]:
        """Return a channel's voxels, whatever the case of its name.

        Raises:
            PredictorError: there is no such channel.
        """
        for own, voxels in self.channels.items():
            if own.lower() == name.lower():
                return voxels
        raise PredictorError(
            f"a rule needs the channel {name!r}; there are: {', '.join(self.channels) or 'none'}",
            fix="remove the rule, or name the channel so in predictor.toml",
        )
