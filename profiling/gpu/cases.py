"""Cases as the organisers run and measure them: a process per case, watched by the profiler.

Their reports, one for each predictor, are what `flarekit profile` writes, less pictures, and are
kept as reports.tar.gz.
"""

from __future__ import annotations

import tarfile
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from gpu import inputs
from gpu.device import gpu_index
from gpu.predicting import PROGRAM, RECORD, arguments, find, masks_of
from gpu.supervise import Settings
from gpu.worker import Record

ARCHIVE = "reports.tar.gz"
_KEPT = ("gpu_used_mib", "gpu_tree_mib", "gpu_utilisation_percent", "tree_rss_mib", "tree_cpu_s")
_LEAST_S = 3.0


def run(settings: Settings, record: Record, which: str = "three") -> None:
    """Run cases, and keep their reports.

    Args:
        settings: of the check.
        record: gets a row for every case.
        which: `three`: every predictor at three sizes, the smallest of all first; `eight`: the
            first predictor at the other sizes, then all sizes in one process.
    """
    reports = Reports(settings)
    if which == "three":
        sizes = inputs.sizes("flare", quick=settings.quick)
        order = sizes[:1] + sizes[:0:-1]  # the smallest, the largest, what is between
        for size in order:
            for name in settings.predictors:
                _case(settings, record, reports, name, size)
                reports.pack()
    else:
        name = settings.predictors[0]
        convention = find(name).spec.convention
        every = inputs.sizes(convention, quick=settings.quick, every=True)
        for size in every:
            if size not in inputs.sizes(convention, quick=settings.quick):
                _case(settings, record, reports, name, size, "_eight")
        _all_in_one(settings, record, reports, name, every)
        reports.pack()


class Reports:
    """The profiler's reports of this step, one for each predictor.

    Args:
        settings: of the check.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = Path(settings.work) / "reports"
        self._begun: dict[str, tuple[Any, Any]] = {}

    def monitor(self, predictor: str, inputs_dir: Path, report: str, case: str) -> dict[str, Any]:
        """Segment a folder in a process of its own under watch; return the organisers' figures.

        Args:
            predictor: a name or a folder.
            inputs_dir: the convention's input folder.
            report: that the case is added to.
            case: its name there.
        """
        from flarekit.profiler.command import CommandTarget
        from flarekit.profiler.loop import WatchOptions, profile_command

        folder, sofar = self._begun.get(report) or self._begin(predictor, report)
        inside, masks = folder.root / "inside" / case, folder.root / "masks" / case
        line = [*PROGRAM, *arguments(self._settings, predictor, inputs_dir, masks, inside)]
        target = CommandTarget(line, folder.log(case))
        options = WatchOptions(gpu=gpu_index(), timeout_s=max(1.0, self._settings.left_s))
        # the profiler names a command's files after its report; here the report has many cases
        told = profile_command(target, folder, replace(sofar, name=case), options, inside / RECORD)
        last = replace(told.cases[-1], shape_XYZ=_stored_shape(inputs_dir))
        sofar = replace(told, name=report, cases=(*told.cases[:-1], last))
        folder.write(sofar)
        self._begun[report] = folder, sofar
        row = row_of(last)
        row["voxels"] = _voxels(masks)
        if row["exit_code"] != 0:
            row["log"] = folder.log(case).read_text(errors="replace")[-1500:]
        return row

    def pack(self) -> None:
        """Put all reports, those of other steps too, into one file that is kept; no masks."""
        if not self._root.is_dir():
            return
        target = Path(self._settings.out) / ARCHIVE
        draft = target.with_suffix(".draft")
        with tarfile.open(draft, "w:gz") as archive:
            archive.add(self._root, "reports", filter=_without_masks)
        draft.replace(target)

    def _begin(self, predictor: str, report: str) -> tuple[Any, Any]:
        from flarekit.profiler.environment import environment
        from flarekit.profiler.folder import ReportFolder, new_report
        from flarekit.profiler.records import Tolerances

        folder = ReportFolder(self._root / report, report)
        folder.make()
        shown = ("flarekit", "predict", "--predictor", Path(predictor).name)
        facts = environment(gpu_index())
        return folder, new_report(report, "command", shown, Tolerances(), facts)


def row_of(case: Any) -> dict[str, Any]:  # noqa: ANN401 - a ProfiledCase
    """Return a profiled case in few numbers."""
    measured = {name: _plain(case.measured.get(name)) for name in _KEPT if name in case.measured}
    return {
        "exit_code": case.exit_code,
        "failures": list(case.failures),
        **_plain(case.official),
        "wall_s": round(case.wall_s, 3),
        "excess": _plain(case.excess),
        "measured": measured,
        "stages": {name: round(value, 3) for name, value in case.stages.items()},
        "inside": _plain(case.inside),
        "traits": case.traits,
        "longest_gap_s": case.sampler.longest_gap_s if case.sampler else None,
    }


def _case(
    settings: Settings, record: Record, reports: Reports, name: str, size: int, suffix: str = ""
) -> None:
    row: dict[str, Any] = {"predictor": name, "size": size}
    if name in settings.untrained:
        row["weights"] = "random: for timing only"
    folder = inputs.wait_for(settings, find(name).spec.convention, size)
    if folder is None or settings.left_s < _LEAST_S:
        why = "no time left" if folder else "its input was not ready in time"
        record.append("cases", {**row, "skipped": why})
        return
    with record.attempt(f"{name} {size}"):
        row |= reports.monitor(name, folder, f"{name}{suffix}", f"{name}_{size}")
    record.append("cases", row)


def _all_in_one(
    settings: Settings, record: Record, reports: Reports, name: str, sizes: tuple[int, ...]
) -> None:
    """Run one process over all sizes: what a batch gains."""
    if settings.left_s < 2 * _LEAST_S or find(name).spec.convention != "flare":
        record.add(all_in_one={"skipped": "no time left"})
        return
    folder = Path(settings.work) / "inputs" / "flare_all"
    folder.mkdir(exist_ok=True)
    for size in sizes:
        one = inputs.wait_for(settings, "flare", size)
        for path in one.iterdir() if one else ():
            link = folder / path.name
            if not link.exists():
                link.hardlink_to(path)
    with record.attempt("all in one"):
        row = reports.monitor(name, folder, f"{name}_all", f"{name}_all")
        record.add(all_in_one={"predictor": name, "sizes": sizes, **row})


def _stored_shape(folder: Path) -> tuple[int, int, int] | None:
    """Return the size of a folder's only CT; None where it holds something else."""
    from flarekit.core.nifti import read_geometry

    scans = list(folder.glob("*_0000.nii.gz"))
    if len(scans) != 1:
        return None
    z, y, x = read_geometry(scans[0]).shape_ZYX
    return x, y, z


def _without_masks(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "masks" in Path(member.name).parts else member


def _voxels(masks: Path) -> dict[str, dict[str, int]]:
    """Return how many voxels each label has: an empty mask shows at once."""
    import numpy as np

    found = {}
    for name, mask in masks_of(masks).items():
        values, counts = np.unique(mask, return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        found[name] = {str(value): count for value, count in pairs if value}
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 - records of the profiler, as JSON
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value
