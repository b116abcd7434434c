"""Runs watched one by one: any command, or the organisers' loop over a folder of scans."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flarekit.containers import ProcessResult
from flarekit.core.errors import InputError
from flarekit.core.files import make_folder
from flarekit.profiler import official
from flarekit.profiler.case_folders import (
    CaseFolders,
    Scan,
    keep_mask,
    leftover_failures,
    leftovers_of,
    locked_failures,
    mask_failures,
    prepare,
    remove,
    warn_of_remains,
)
from flarekit.profiler.figures import measure_all
from flarekit.profiler.folder import ReportFolder, excess_of
from flarekit.profiler.monitor import MonitoredRun, Target, monitor
from flarekit.profiler.records import EfficiencyReport, ProfiledCase, Tolerances
from flarekit.profiler.sampler import INTERVAL_S
from flarekit.profiler.step_times import StepTimes, read_step_times

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How to watch.

    Attributes:
        gpu: index or UUID, as NVML counts.
        timeout_s: after which a run is ended; None for never.
        interval_s: between samples.
    """

    gpu: str = "0"
    timeout_s: float | None = None
    interval_s: float = INTERVAL_S


MakeTarget = Callable[[CaseFolders, Path], Target]


def profile_command(
    target: Target,
    folder: ReportFolder,
    report: EfficiencyReport,
    options: WatchOptions,
    record_of_run: Path | None = None,
) -> EfficiencyReport:
    """Watch one command and add it to a report.

    Args:
        target: the command.
        folder: of the report.
        report: gets one more case, called as the report.
        options: how to watch.
        record_of_run: where `flarekit predict --report` writes; read if it is new.

    Raises:
        OutputError: the report could not be written.
        UsageError: the command cannot be started.
    """
    before = _stamp(record_of_run)
    seen = _seen(target, folder, report.name, {"case_id": report.name}, options)
    fresh = record_of_run is not None and _stamp(record_of_run) != before
    times = _read_step_times(record_of_run) if fresh else None
    failures = tuple(_run_failures(seen.result, options))
    case = _case(report.name, report.name, seen, failures, times, report.tolerances)
    report = replace(report, cases=(*report.cases, case))
    folder.write(report)
    return report


def profile_scans(
    scans: list[Scan],
    make_target: MakeTarget,
    output_dir: Path,
    folder: ReportFolder,
    report: EfficiencyReport,
    options: WatchOptions,
    on_case: Callable[[ProfiledCase], None],
) -> EfficiencyReport:
    """Run the organisers' loop: every scan alone, in folders of its own.

    Args:
        scans: of `find_scans`.
        make_target: what to run for a case, given its folders and a file for what it says.
        output_dir: gets the masks.
        folder: of the report.
        report: gets one case for every scan, and is written after each.
        options: how to watch.
        on_case: told of every case.

    Raises:
        OutputError: the report or a mask could not be written.
    """
    make_folder(output_dir)
    for scan in scans:
        folders = prepare(scan, folder.root / "work" / scan.name)
        target = None
        try:
            target = make_target(folders, folder.log(scan.name))
            case = _profile_scan(scan, folders, target, folder, report, options)
            keep_mask(scan, folders, output_dir)
        finally:
            if not remove(folders) and target is not None and target.open_up(folders.inputs.parent):
                remove(folders)
            warn_of_remains(folders)
        report = replace(report, cases=(*report.cases, case))
        folder.write(report)
        on_case(case)
    return report


def _profile_scan(
    scan: Scan,
    folders: CaseFolders,
    target: Target,
    folder: ReportFolder,
    report: EfficiencyReport,
    options: WatchOptions,
) -> ProfiledCase:
    facts = {"case_id": scan.case_id, "shape_XYZ": scan.shape_XYZ}
    seen = _seen(target, folder, scan.name, facts, options)
    locked = locked_failures(folders)
    if locked:
        target.open_up(folders.inputs.parent)
    leftovers = leftovers_of(scan, folders)
    failures = (
        *_run_failures(seen.result, options),
        *mask_failures(scan, folders),
        *locked,
        *leftover_failures(leftovers),
    )
    record_of_run = next(folders.record.rglob("run.json"), None)
    times = _read_step_times(record_of_run)
    case = _case(scan.name, scan.case_id, seen, failures, times, report.tolerances)
    return replace(case, shape_XYZ=scan.shape_XYZ, leftovers=leftovers)


def _seen(
    target: Target, folder: ReportFolder, name: str, facts: dict[str, Any], options: WatchOptions
) -> MonitoredRun:
    return monitor(
        target,
        samples_file=folder.samples(name),
        record_file=folder.record(name),
        facts=facts,
        **vars(options),
    )


def _case(
    name: str,
    case_id: str,
    seen: MonitoredRun,
    failures: tuple[str, ...],
    times: StepTimes | None,
    tolerances: Tolerances,
) -> ProfiledCase:
    samples = list(seen.samples)
    return ProfiledCase(
        name=name,
        case_id=case_id,
        shape_XYZ=None,
        began=seen.began,
        wall_s=seen.wall_s,
        exit_code=None if seen.result.timed_out else seen.result.exit_code,
        failures=failures,
        leftovers=(),
        official=official.figures_of(seen.record),
        measured=measure_all(samples),
        excess=excess_of(samples, seen.record, tolerances),
        stages={} if times is None else times.stages(seen.wall_s, seen.result.started_s),
        inside=() if times is None else times.cases,
        traits={} if times is None else dict(times.traits),
        sampler=seen.quality,
    )


def _run_failures(result: ProcessResult, options: WatchOptions) -> list[str]:
    said = f"; last line: {result.last_line}" if result.last_line else ""
    if result.not_started:
        return [f"the container did not start: {result.not_started}"]
    if result.timed_out:
        return [f"still running after {options.timeout_s:g} s: ended{said}"]
    if result.out_of_memory:
        return [f"killed for memory (exit code {result.exit_code}): the limit was reached{said}"]
    if result.exit_code:
        return [f"exit code {result.exit_code}{said}"]
    return []


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _read_step_times(path: Path | None) -> StepTimes | None:
    if path is None:
        return None
    try:
        return read_step_times(path)
    except InputError as error:
        _LOG.warning("%s", error)
        return None
