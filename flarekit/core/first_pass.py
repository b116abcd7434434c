"""What looks at a scan before a predictor's network does, as `predictor.toml` states it."""

from typing import Annotated

from pydantic import Field

from flarekit.core.grid import Side
from flarekit.core.tables import Table


class Coarse(Table):
    """A first pass by another predictor: the network then looks only where that found something.

    Attributes:
        predictor: its name, or its folder; its channels are the same.
        margin_mm: added on every side.
    """

    predictor: str
    margin_mm: Annotated[float, Field(ge=0, strict=True)] = 20.0


class Locator(Table):
    """A small network that sees the whole scan at a coarse spacing and says where labels lie.

    It is a predictor folder of its own, inside that of the predictor which names it.

    Attributes:
        folder: its name.
        sha256: of its weights: no others are taken.
        margin_mm: what lies further than this from anything it may have found is not looked at.
        small_tile_ZYX: voxels of the tiles that the predictor's network runs instead of its usual
            ones where a time budget leaves room for few; None: the usual ones in any case.
        least_probability: a voxel whose labels are less probable than this, taken together, holds
            none; with 0 everything is looked at.
        everywhere: the predictor looks everywhere as long as there is time, whatever was found;
            without a time budget its locator is not asked. For networks whose masks depend on
            where their tiles stand.
        labels: its label -> the predictor's; those of the same name need no entry, and its other
            labels are background.
    """

    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "locator"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    margin_mm: Annotated[float, Field(ge=0, strict=True)] = 15.0
    small_tile_ZYX: tuple[Side, Side, Side] | None = None
    least_probability: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.05
    everywhere: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
