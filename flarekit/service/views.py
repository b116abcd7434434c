"""What the API says of cases and predictors; the models that OpenAPI describes."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flarekit.core.spec import PredictorFolder
from flarekit.service.service import Service
from flarekit.service.store import State, StoredCase

Voxel = tuple[int, int, int]


class Clicks(BaseModel):
    """Voxels of the mask, (x, y, z): all of them each time, for they replace those before."""

    model_config = ConfigDict(extra="forbid")

    tumor: list[Voxel] = Field(default_factory=list, description="In a lesion that was missed.")
    background: list[Voxel] = Field(default_factory=list, description="In what is not a lesion.")


class ProblemView(BaseModel):
    """Why a request cannot be met (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="What happened, as the command line says it.")]
    fix: Annotated[str, Field(description="What to do about it.")]


class Said(BaseModel):
    """Why a case failed, and what to do."""

    message: str
    fix: str


class Tiles(BaseModel):
    """How far the network is."""

    done: int
    total: int


class CaseView(BaseModel):
    """A case: where it stands, and what it came to."""

    id: str
    state: State
    place: Annotated[int | None, Field(description="How many wait before it.")] = None
    step: Annotated[str | None, Field(description="What is being done with it.")] = None
    tiles: Tiles | None = None
    predictor: str
    channels: list[str]
    options: dict[str, Any]
    created: datetime
    expires: Annotated[datetime, Field(description="When it is deleted.")]
    revision: Annotated[int, Field(description="Grows whenever the mask changes.")]
    is_dicom: bool
    takes_clicks: bool
    clicks: Clicks
    result: dict[str, Any] | None = None
    error: Said | None = None


class LabelView(BaseModel):
    """A label of a predictor."""

    name: str
    value: int
    colour: Annotated[str, Field(description="As in pictures, #rrggbb.")]


class PredictorView(BaseModel):
    """A predictor that is offered."""

    name: str
    title: str
    channels: list[str]
    labels: list[LabelView]
    takes_clicks: bool
    card: Annotated[str, Field(description="Where its card is.")]


def view_of(service: Service, case: StoredCase) -> CaseView:
    """Return what is said of a case."""
    progress = service.turns.progress_of(case.id) if case.state == "running" else None
    spec = service.predictors[case.predictor].spec if case.predictor in service.predictors else None
    place = None
    if case.state == "waiting":
        waiting = service.store.waiting()
        place = waiting.index(case.id) if case.id in waiting else 0
    tiles = None
    if progress is not None and progress.tiles[1]:
        tiles = Tiles(done=progress.tiles[0], total=progress.tiles[1])
    expires = case.changed + service.settings.keep_hours * 3600
    return CaseView(
        id=case.id,
        state=case.state,
        place=place,
        step=None if progress is None else progress.step,
        tiles=tiles,
        predictor=case.predictor,
        channels=[] if spec is None else [channel.name for channel in spec.channels],
        options=case.options,
        created=datetime.fromtimestamp(case.created, UTC),
        expires=datetime.fromtimestamp(expires, UTC),
        revision=case.revision,
        is_dicom="dicom" in case.files,
        takes_clicks=spec is not None and "clicks" in [rule.name for rule in spec.rules],
        clicks=Clicks(**case.clicks),
        result=case.result or None,
        error=Said(**case.error) if case.error else None,
    )


def predictor_view(predictor: PredictorFolder, colours: dict[int, str]) -> PredictorView:
    """Return what is said of a predictor."""
    spec = predictor.spec
    return PredictorView(
        name=spec.name,
        title=spec.title,
        channels=[channel.name for channel in spec.channels],
        labels=[
            LabelView(name=name, value=value, colour=colours[value])
            for name, value in spec.labels.items()
        ],
        takes_clicks="clicks" in [rule.name for rule in spec.rules],
        card=f"/v1/predictors/{spec.name}/card",
    )


@lru_cache(maxsize=64)
def card_of(folder: Path) -> str:
    """Return what a predictor's card says; empty where it has none."""
    path = folder / "CARD.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
