"""Cases as the organisers run and measure them: a process per case, watched by the profiler.

Their reports, one for each predictor, are what `flarekit profile` writes, and are kept as
reports.tar.gz.
"""

from __future__ import annotations

import tarfile
from dataclasses import asdict, is_dataclass
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
    """Run cases.

    Args:
        settings: of the check.
        record: gets a row for every case.
        which: `three`: every predictor at three sizes, the smallest of all first; `eight`: the
            first predictor at the other sizes, then all sizes in one process.
    """
    if which == "three":
        names, sizes = settings.predictors, inputs.sizes("flare", quick=settings.quick)
        order = sizes[:1] + sizes[:0:-1]  # the smallest, the largest, what is between
        for size in order:
            for name in names:
                _case(settings, record, name, size, f"{name}")
    else:
        name = settings.predictors[0]
        convention = find(name).spec.convention
        every = inputs.sizes(convention, quick=settings.quick, every=True)
        for size in every:
            if size not in inputs.sizes(convention, quick=settings.quick):
                _case(settings, record, name, size, f"{name}_eight")
        _all_in_one(settings, record, name, convention, every)
    pack_reports(settings)


def watch_case(
    settings: Settings, predictor: str, folder: Path, report_name: str, case: str
) -> dict[str, Any]:
    """Segment a folder in a process of its own under watch, and return the organisers' figures.

    Args:
        settings: of the check.
        predictor: a name or a folder.
        folder: the convention's input folder.
        report_name: of the report that the case is added to.
        case: its name there.
    """
    from flarekit.profiler.command import CommandTarget
    from flarekit.profiler.environment import environment
    from flarekit.profiler.folder import ReportFolder, new_report
    from flarekit.profiler.loop import WatchOptions, profile_command
    from flarekit.profiler.records import Tolerances

    root = Path(settings.work) / "reports" / report_name / case
    report_folder = ReportFolder(root, case)
    report_folder.make()
    inside, masks = root / "inside", root / "masks"
    line = [*PROGRAM, *arguments(settings, predictor, folder, masks, inside)]
    shown = ("flarekit", "predict", "--predictor", Path(predictor).name)
    report = new_report(case, "command", shown, Tolerances(), environment(gpu_index()))
    target = CommandTarget(line, report_folder.log(case))
    options = WatchOptions(gpu=gpu_index(), timeout_s=max(1.0, settings.left_s))
    report = profile_command(target, report_folder, report, options, inside / RECORD)
    row = row_of(report.cases[-1])
    row["voxels"] = _voxels(masks)
    if row["exit_code"] != 0:
        row["log"] = report_folder.log(case).read_text(errors="replace")[-1500:]
    return row


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


def pack_reports(settings: Settings) -> None:
    """Put all reports, less the masks, into one file that is kept."""
    root = Path(settings.work) / "reports"
    if not root.is_dir():
        return
    target = Path(settings.out) / ARCHIVE
    draft = target.with_suffix(".draft")
    with tarfile.open(draft, "w:gz") as archive:
        archive.add(root, "reports", filter=lambda m: None if "/masks" in m.name else m)
    draft.replace(target)


def _case(settings: Settings, record: Record, name: str, size: int, report: str) -> None:
    spec = find(name).spec
    row: dict[str, Any] = {"predictor": name, "size": size}
    if name in settings.untrained:
        row["weights"] = "random: for timing only"
    if settings.left_s < _LEAST_S:
        record.append("cases", {**row, "skipped": "no time left"})
        return
    folder = inputs.wait_for(settings, spec.convention, size)
    if folder is None:
        record.append("cases", {**row, "skipped": "its input was not ready in time"})
        return
    with record.attempt(f"{name} {size}"):
        row |= watch_case(settings, name, folder, report, f"{name}_{size}")
    record.append("cases", row)


def _all_in_one(
    settings: Settings, record: Record, name: str, convention: str, sizes: tuple[int, ...]
) -> None:
    """Run one process over all sizes: what a batch gains."""
    if settings.left_s < 2 * _LEAST_S or convention != "flare":
        record.add(all_in_one={"skipped": "no time left"})
        return
    folder = Path(settings.work) / "inputs" / "flare_all"
    folder.mkdir(exist_ok=True)
    for size in sizes:
        one = inputs.wait_for(settings, convention, size)
        for path in one.iterdir() if one else ():
            link = folder / path.name
            if not link.exists():
                link.hardlink_to(path)
    with record.attempt("all in one"):
        row = watch_case(settings, name, folder, f"{name}_all", f"{name}_all")
        record.add(all_in_one={"predictor": name, "sizes": sizes, **row})


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
