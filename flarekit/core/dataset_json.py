"""`dataset.json`, nnU-Net's description of a data set: channels, labels and regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from flarekit.core.errors import InputError, PredictorError
from flarekit.core.json_files import no_bool, read_json, typed
from flarekit.core.tables import Name

NAME = "dataset.json"
_IGNORE, _BACKGROUND = "ignore", "background"
_HIGHEST = 255
_LONGEST = 120  # of a name, as in predictor.toml
Value = Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=_HIGHEST)]
Values = Annotated[tuple[Value, ...], Field(min_length=1)]


class _Stated(BaseModel):
    """What the file states; nnU-Net 1 named channels `modality` and turned labels round."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    channels: dict[str, Name] | None = Field(
        None, validation_alias=AliasChoices("channel_names", "modality")
    )
    labels: dict[str, Value | str | Values] = Field(min_length=1)
    regions_class_order: tuple[Value, ...] = ()
    licence: Any = Field(None, validation_alias=AliasChoices("licence", "license"))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as its file describes it.

    Attributes:
        source: the file.
        channels: number, as text -> name; None where the file does not say.
        labels: name -> value in masks, background and what is ignored left out; of regions, the
            value that each paints.
        region_values: those of regions, in order; none where there are none.
        ignored: names of what is neither a label nor background.
        licence: of the data; empty where the file does not say.
    """

    source: Path
    channels: Mapping[str, str] | None
    labels: dict[str, int]
    region_values: tuple[int, ...]
    ignored: tuple[str, ...] = ()
    licence: str = ""

    def channel_names(self) -> list[str]:
        """Return the names of the channels in order.

        Raises:
            InputError: there are none, or they are not numbered from 0 on.
        """
        if not self.channels:
            raise InputError(
                f"{self.source}: channel_names is missing or empty",
                fix='write it as nnU-Net asks: {"0": "CT"}',
            )
        names = [self.channels.get(str(k)) for k in range(len(self.channels))]
        known = [name for name in names if name is not None]
        if len(known) != len(names):
            raise InputError(
                f"{self.source}: channel_names are numbered {', '.join(self.channels)}, "
                "not from 0 on",
                fix="number them as nnU-Net asks: 0, 1, ...",
            )
        return known

    def voxel_labels(self) -> dict[str, int]:
        """Return name -> value of labels, as voxels of the label maps have them.

        Raises:
            InputError: they are regions, whose voxels have several values.
        """
        if self.region_values:
            raise InputError(
                f"{self.source}: has regions, which overlap, and what is measured is one label per "
                "voxel",
                fix="name a data set whose labels have one value each",
            )
        return self.labels


def read_dataset(path: Path, *, gaps: bool = False) -> Dataset:
    """Read a `dataset.json`.

    Args:
        path: the file.
        gaps: labels may have any values; nnU-Net wants them numbered 1, 2, ...

    Raises:
        InputError: it is missing, no JSON, or a field in it is of another type.
        PredictorError: labels are numbered with gaps, or regions have no values.
    """
    stated = typed(_Stated, read_json(path), source=path)
    turned = _turned(stated.labels, path)
    labels, regions = _labels(stated, turned, path, gaps=gaps)
    return Dataset(
        source=path,
        channels=stated.channels,
        labels=labels,
        region_values=tuple(regions),
        ignored=tuple(name for name in turned if name.lower() == _IGNORE),
        licence=stated.licence.strip() if isinstance(stated.licence, str) else "",
    )


def _labels(
    dataset: _Stated,
    turned: Mapping[str, int | tuple[int, ...]],
    source: Path,
    *,
    gaps: bool,
) -> tuple[dict[str, int], list[int]]:
    """Return label name -> mask value, and the values that regions paint (none without regions)."""
    named = {
        name: value
        for name, value in turned.items()
        if value not in (0, (0,)) and name.lower() != _IGNORE
    }
    if not named:
        raise InputError(f"{source}: labels name nothing but background", fix="add the labels")
    regions = any(isinstance(value, tuple) and len(value) != 1 for value in named.values())
    if not regions:
        labels = {
            name: value[0] if isinstance(value, tuple) else value for name, value in named.items()
        }
        _check_values(labels, source, gaps=gaps)
        return labels, []
    order = list(dataset.regions_class_order)
    if len(order) != len(named) or len(set(order)) != len(order) or 0 in order:
        raise PredictorError(
            f"{source}: regions_class_order does not name one value per region",
            fix="give it as nnU-Net asks",
        )
    return dict(zip(named, order, strict=True)), order


def _check_values(labels: Mapping[str, int], source: Path, *, gaps: bool) -> None:
    if gaps and len(set(labels.values())) == len(labels):
        return
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        fault = (
            "two labels share one value" if gaps else f"labels are not numbered 1 to {len(labels)}"
        )
        fix = (
            "give each a value of its own" if gaps else "number them without gaps, as nnU-Net asks"
        )
        raise PredictorError(f"{source}: {fault}", fix=fix)


def _turned(
    labels: Mapping[str, int | str | tuple[int, ...]], source: Path
) -> dict[str, int | tuple[int, ...]]:
    """Return label name -> value(s); nnU-Net 1 has it the other way round."""
    if all(key.strip().isdecimal() and isinstance(name, str) for key, name in labels.items()):
        pairs: list[tuple[str, Any]] = [
            (str(name), _value_of(key, source)) for key, name in labels.items()
        ]
    else:
        pairs = list(labels.items())
    turned: dict[str, int | tuple[int, ...]] = {}
    nothing = list[str]()
    for stated, value in pairs:
        name = stated.strip().replace(" ", "_")
        if isinstance(value, str):
            raise InputError(
                f"{source}: labels.{stated}: is {value!r}, and should be the label's value",
                fix='write labels as {"background": 0, "liver": 1}',
            )
        if not name or name in turned:
            raise InputError(
                f"{source}: labels: {'an empty name' if not name else f'{name} is there twice'}",
                fix="give each label a name of its own",
            )
        if not name.isprintable() or len(name) > _LONGEST:
            raise InputError(
                f"{source}: labels: {name[:40]!r} is longer than {_LONGEST} characters, or has "
                "some that cannot be printed",
                fix="give each label a short name of one line",
            )
        turned[name] = value
        if value in (0, (0,)):
            nothing.append(stated)
        elif name.lower() == _BACKGROUND:
            raise InputError(
                f"{source}: labels.{stated}: is {value}, and background is 0",
                fix="give the background 0, and each label a value of its own",
            )
    if len(nothing) > 1:
        raise InputError(
            f"{source}: labels: {' and '.join(nothing[:3])} all have 0, which is background",
            fix="give each label a value of its own, from 1 on",
        )
    return turned


def _value_of(key: str, source: Path) -> int:
    """Return the value that a label of nnU-Net 1 stands at."""
    if len(key.strip()) > len(str(_HIGHEST)) or int(key) > _HIGHEST:
        raise InputError(
            f"{source}: labels.{key[:40]}: is not a value of a mask, which are 0 to {_HIGHEST}",
            fix="number the labels 1, 2, ...",
        )
    return int(key)
