"""What a predictor's labels measured in the cases it was trained on, as `[expected]` states it."""

from typing import Annotated

from pydantic import Field

from flarekit.core.grid import Count
from flarekit.core.tables import Table

Share = Annotated[float, Field(ge=0, le=1)]


class Expected(Table):
    """What masks of one label measured in training: a mask that differs wants to be looked at.

    Attributes:
        cases: how many had the label.
        missing: share of the training cases that did not have it.
        volume_ml: least and greatest volume that is to be expected of another case.
        intensity: least and greatest mean of the first channel under it, in its unit; None
            where that says nothing, since gas in it was clipped.
        cut: share of the cases in which it came near the edge of the scan; None where the scans
            were crops around it.
        second_part: greatest share of a label's voxels in its second largest component.
    """

    cases: Count
    missing: Share
    volume_ml: tuple[float, float]
    intensity: tuple[float, float] | None = None
    cut: Share | None = None
    second_part: Share
