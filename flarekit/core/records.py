"""What a run leaves in writing: one record per case, one per run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flarekit.core.budget import Budget


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """What the sliding window did.

    Attributes:
        done: tiles that were run.
        empty: tiles left out because nothing in them is needed (air).
        dropped: tiles left out because the time was up.
        step: distance between tiles as a fraction of the tile.
        runs: how often every tile was run (flips).
    """

    done: int
    empty: int
    dropped: int
    step: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class LabelStatistics:
    """What a mask and its scan tell of one label.

    Attributes:
        label: its name.
        value: in the mask.
        voxels: that have it; 0 where nothing was found, and then what lies below is empty.
        volume_ml: of these voxels.
        intensities: channel name -> mean and standard deviation (of the voxels, divided by their
            number) of the scan under the label, in the scan's unit: HU of a CT, SUV of a PET.
        components: how many parts there are, connected by faces, edges or corners.
        first_voxel_xyz: the least index along each axis of the scan's file (column, row, slice).
        last_voxel_xyz: the greatest one, which still belongs to the label.
        centroid_mm_ras: mean place of the voxels in the scan's physical space, in mm, with axes to
            the patient's right, anterior and superior (NIfTI's); DICOM and ITK have the first two
            with the other sign.
        touches_edge: whether it reaches the first or last voxel of the scan along any axis.
        second_part: share of its voxels in the second largest component.
    """

    label: str
    value: int
    voxels: int = 0
    volume_ml: float = 0.0
    intensities: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    components: int = 0
    first_voxel_xyz: tuple[int, int, int] | None = None
    last_voxel_xyz: tuple[int, int, int] | None = None
    centroid_mm_ras: tuple[float, float, float] | None = None
    touches_edge: bool = False
    second_part: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Why a person should look at a mask.

    Attributes:
        kind: `volume`, `edge` (of the scan), `parts`, `intensity`, `locator`, or `scan`.
        label: that it is about; None for the whole case.
        text: what was found, and what would be usual.
    """

    kind: str
    label: str | None
    text: str

    def __str__(self) -> str:
        return self.text if self.label is None else f"{self.label}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """What happened to one case.

    Attributes:
        mask: the file written; None where there is none.
        start: step -> wall time of what came before the first case of a run and counts in its
            `wall_s`: `import`, `load`, and `compile` where a network had to be compiled; empty
            for all other cases.
        seconds: stage -> wall time; stages of two cases may overlap.
        wall_s: from the case's beginning (the run's, for the first) to its mask and statistics.
        tiles: what the window did; None where it never came to that.
        traded: what the case did without to keep a budget, in words.
        warnings: what was odd about its files and how it was taken.
        curve: at which second of the case which share of the label that a locator expected was the
            network's; empty where there is no locator.
        volumes_ml: label name -> volume, in ml; 0 where nothing was found; empty if it failed.
        statistics: of every label, where there is a report; in `statistics.csv`, not in the ledger.
        flags: why a person should look at the mask, where there is a report.
        peak_mib: most memory that the process had resident while the case was run, where there is a
            report; 0 where that is not known.
        input_sha256: of all that the case is made of; None where there is no ledger.
        mask_sha256: of the mask's file; None where there is none, or no ledger.
        measured: of its mask, by its convention: name with its unit -> figure.
        error: why it failed; None where it did not. A failed case may still have an empty mask.
        fix: what to do about the error.
    """

    case_id: str
    mask: Path | None
    start: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    tiles: TileRecord | None = None
    traded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    volumes_ml: dict[str, float] = field(default_factory=dict)
    statistics: tuple[LabelStatistics, ...] = ()
    flags: tuple[Flag, ...] = ()
    peak_mib: float = 0.0
    input_sha256: str | None = None
    mask_sha256: str | None = None
    measured: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    fix: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the line of the case in `ledger.jsonl`."""
        content = asdict(replace(self, statistics=()))
        del content["statistics"]
        return content | {"mask": None if self.mask is None else str(self.mask)}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What happened in one run, and what computed.

    Attributes:
        mode: `fast` or `exact`.
        scan: what computed selective scans, and why nothing faster did; None where there were none.
        budget: what each case was allowed to cost.
        seconds: time spent once per run, by stage.
        wall_s: of the whole run.
        cases: in the order they ran.
        not_run: ids of the cases left out because a failure stopped the run.
        unlisted: how many further cases were done without anything to report. They are only
            counted, so that the record of a large cohort stays small.
        done_before: ids of the cases that an earlier run segmented, and that were skipped.
        failed_before: ids of those that failed in an earlier run, and were skipped as well.
        left_out: files and series that are in no case though they look as if they should be, and
            why, a sentence each.
    """

    predictor: str
    convention: str
    mode: str
    engine: str
    device: str
    device_name: str
    precision: str
    budget: Budget
    seconds: dict[str, float]
    wall_s: float
    cases: tuple[CaseRecord, ...]
    not_run: tuple[str, ...] = ()
    unlisted: int = 0
    done_before: tuple[str, ...] = ()
    failed_before: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    scan: str | None = None

    @property
    def failed(self) -> tuple[CaseRecord, ...]:
        """Return the cases that failed."""
        return tuple(case for case in self.cases if case.error is not None)

    @property
    def flagged(self) -> tuple[CaseRecord, ...]:
        """The cases whose masks a person should look at."""
        return tuple(case for case in self.cases if case.flags)

    @property
    def traded(self) -> tuple[CaseRecord, ...]:
        """The cases that did without something to keep a budget."""
        return tuple(case for case in self.cases if case.traded)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: what holds for the whole run, cases counted and named."""
        return asdict(replace(self, cases=())) | {
            "cases": len(self.cases) + self.unlisted,
            "failed": [case.case_id for case in self.failed],
            "volumes_ml": {
                case.case_id: case.volumes_ml for case in self.cases if case.error is None
            },
            "flagged": {case.case_id: [str(flag) for flag in case.flags] for case in self.flagged},
            "traded": {case.case_id: list(case.traded) for case in self.traded},
        }
