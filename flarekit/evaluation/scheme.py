"""What a scheme of scoring is: the figures of one organiser, or of the papers, from two masks.

A scheme knows how what is empty, missing or averaged is treated. An organiser's is the module
`scoring.py` of its convention; the papers' is `flarekit.evaluation.papers`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from flarekit.core.errors import UsageError
from flarekit.evaluation.masks import Mask

Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is scored, and by which year's rules.

    Attributes:
        edition: one of the scheme's `EDITIONS`.
        labels: label name -> value in both masks; labels left out are not scored.
        tolerances_mm: label name -> tolerance of its surface, before those of the scheme.
        unscored: values that masks may hold besides, which are left out on purpose.
        regions: name -> the values that make it up, for labels that are several values together;
            they may overlap. None of them is in `labels`.
        probabilities: folder with what `flarekit predict --probabilities` wrote.
    """

    edition: str
    labels: Mapping[str, int]
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)
    unscored: frozenset[int] = frozenset()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    probabilities: Path | None = None

    @property
    def members(self) -> dict[str, tuple[int, ...]]:
        """Every label and region: name -> its values."""
        return {**{name: (value,) for name, value in self.labels.items()}, **self.regions}

    @property
    def pictured(self) -> dict[str, int]:
        """What has a colour in pictures: the labels, and values that only regions have."""
        known = set(self.labels.values())
        others = {value for values in self.regions.values() for value in values} - known
        return {**self.labels, **{f"value {value}": value for value in sorted(others)}}


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one scored thing: a case, or one of the volumes stacked in it.

    Attributes:
        row_id: the case's id, with a number where it holds several volumes.
        scores: label name -> figure's name -> value; NaN where it is not defined.
    """

    row_id: str
    scores: Mapping[str, Figures]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean, and how many rows had a value to go in."""

    value: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The means over all rows, per label and overall.

    Attributes:
        labels: label name -> figure's name -> mean over the rows where it is defined.
        overall: the organiser's figures over all labels and cases.
    """

    labels: Mapping[str, Mapping[str, Mean]]
    overall: Figures


class Scheme(Protocol):
    """What every scheme module defines.

    Attributes:
        EDITIONS: names of the years' rules, the default last.
    """

    EDITIONS: tuple[str, ...]

    def default_labels(self, edition: str) -> Mapping[str, int | tuple[int, ...]]:
        """Return the organiser's labels: name -> value, or its values where these are numbers."""
        ...

    def check(self, settings: Settings) -> None:
        """Check that these labels can be scored.

        Raises:
            UsageError: they cannot; the message says what is missing.
        """
        ...

    def score(
        self, case_id: str, truth: Mask, predicted: Mask | None, settings: Settings
    ) -> list[Row]:
        """Score one case.

        Args:
            case_id: for the rows.
            truth: as stored.
            predicted: of the same shape; None where there is none that can be read.
            settings: what is scored.

        Raises:
            InputError: the truth lacks something.
        """
        ...

    def summarise(self, rows: Sequence[Row], settings: Settings) -> Summary:
        """Return the means that the organiser takes of all rows."""
        ...


@dataclass(frozen=True)
class NamedScheme:
    """A scheme by where it stands, so that it can be handed to other processes.

    Attributes:
        name: as users know it.
        module: that satisfies `Scheme`.
    """

    name: str
    module: str

    def load(self) -> Scheme:
        """Import it."""
        return cast(Scheme, import_module(self.module))


PAPERS = NamedScheme("papers", "flarekit.evaluation.papers")


def means_of(
    rows: Iterable[Row], mean: Callable[[list[float]], float]
) -> dict[str, dict[str, Mean]]:
    """Return label -> figure -> mean of the rows where it is not NaN; NaN where there is none."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for label, figures in row.scores.items():
            for name, value in figures.items():
                values.setdefault(label, {}).setdefault(name, []).append(value)
    means: dict[str, dict[str, Mean]] = {}
    for label, figures_of_label in values.items():
        for name, all_values in figures_of_label.items():
            defined = [value for value in all_values if not math.isnan(value)]
            value = float(mean(defined)) if defined else math.nan
            means.setdefault(label, {})[name] = Mean(value=value, count=len(defined))
    return means


def check_one_label(settings: Settings, who: str) -> None:
    """Check that there is one label, as an organiser scores it.

    Raises:
        UsageError: there are more.
    """
    if len(settings.labels) != 1:
        raise UsageError(
            f"{who} scores one label, not {len(settings.labels)}", fix="give --labels lesion=1"
        )
