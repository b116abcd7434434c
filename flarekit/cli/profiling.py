"""What `flarekit profile` does."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.profile_requests import (
    JOBS,
    Allowed,
    ImageRun,
    RunLine,
    Watching,
    line_of,
)
from flarekit.conventions.facts import preset_of
from flarekit.core.apart import keep_apart
from flarekit.core.errors import UsageError
from flarekit.core.names import safe_name
from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.case_folders import CaseFolders, Scan, find_jobs, find_scans
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.container import INSIDE, ContainerOptions, ContainerTarget, check_engine
from flarekit.profiler.environment import environment
from flarekit.profiler.folder import ReportFolder, draw, new_report
from flarekit.profiler.job_folders import job_folders
from flarekit.profiler.limits import Limits, LimitVerdict, is_broken, judge, tolerances_of
from flarekit.profiler.load_report import load_report
from flarekit.profiler.loop import WatchOptions, profile_command, profile_scans
from flarekit.profiler.records import EfficiencyReport, ProfiledCase
from flarekit.profiler.scan_kinds import ending_of

_OTHERS_MIB = 1.0
_USUAL_END_S = 600.0


def watch_command(
    command: Sequence[str],
    output: Path,
    title: str,
    preset: str | None,
    options: WatchOptions,
    console: Console,
) -> int:
    """Watch a command to its end, and return its exit code; 124 where its time was up."""
    folder = _folder(output, title)
    facts, tolerances = environment(options.gpu), tolerances_of(_limits(preset))
    report = new_report(title, "command", tuple(command), tolerances, facts)
    folder.write(report)
    report = profile_command(CommandTarget(command), folder, report, options, folder.json)
    _close(report, folder, console)
    code = report.cases[0].exit_code
    return 124 if code is None else code


def profile_image(run: ImageRun, run_line: RunLine, watching: Watching, console: Console) -> int:
    """Run an image on every scan or job, and return 1 where one failed, else 0."""
    jobs = bool(job_folders(run.input_dir))
    scans = find_jobs(run.input_dir) if jobs else find_scans(run.input_dir)
    keep_apart(run.input_dir, run.output_dir, [Path(scan.output) for scan in scans])
    keep_apart(run.input_dir, run.report_dir, [])
    engine, limits = check_engine(run.image), _limits(watching.preset)
    engine |= {} if run.convention is None else {"convention": run.convention}
    organiser = line_of(engine.get("convention"), JOBS if jobs else _kind(scans))
    edition_mib = None if watching.preset is None else limits.ram_mib
    options = ContainerOptions.of(organiser, run.image, **vars(run_line), edition_mib=edition_mib)
    gpu = options.watched_gpu if watching.gpu is None else watching.gpu
    facts = environment(gpu, engine)
    folder = _folder(run.report_dir, options.team)
    places = {"$PWD/inputs": options.inputs, "$PWD/outputs": options.outputs}
    line = options.line(options.team, {Path(here): there for here, there in places.items()})
    report = new_report(options.team, "docker", tuple(line), tolerances_of(limits), facts)
    folder.write(report)

    def make(work: CaseFolders, log: Path) -> ContainerTarget:
        volumes = work.volumes(options.inputs, options.outputs, None if jobs else INSIDE)
        return ContainerTarget(options, volumes, log)

    numbers = count(1)

    def on_case(case: ProfiledCase) -> None:
        progress(next(numbers), len(scans))
        console.say(f"{case.name}: {case.official.time_s:.2f} s")
        for failure in case.failures:
            console.error(f"case {case.name}: {failure}", f"see {folder.log(case.name)}")

    timeout_s = watching.timeout_s or max(_USUAL_END_S, limits.cap_s or 0.0)
    watch = WatchOptions(gpu=gpu, timeout_s=timeout_s)
    with console.bar("jobs" if jobs else "scans") as progress:
        report = profile_scans(scans, make, run.output_dir, folder, report, watch, on_case)
    _close(report, folder, console)
    return 1 if report.failed else 0


def _kind(scans: Sequence[Scan]) -> str:
    return str(ending_of(scans[0].path))


def limits_to_check(allowed: Allowed) -> Limits:
    """Return the limits that were asked for, and which of them have to have been measured.

    Raises:
        UsageError: --cpu beside a limit of GPU memory, or no such preset.
    """
    if allowed.cpu and allowed.max_gpu_mib is not None:
        raise UsageError("--cpu and --max-gpu-mib contradict each other", fix="give one of them")
    asked: dict[str, Any] = {
        "time_s": allowed.max_time,
        "gpu_mib": allowed.max_gpu_mib,
        "ram_mib": allowed.max_ram_mib,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    required = {key.partition("_")[0] for key in asked}
    limits = _limits(allowed.preset)
    if allowed.cpu:
        limits = replace(limits, gpu_mib=None)
    elif allowed.preset is not None and limits.gpu_mib is not None:
        required.add("gpu")
    return replace(limits, **asked, required=frozenset(required))


def check_report(report_dir: Path, limits: Limits, console: Console) -> int:
    """Say which case breaks which limit, and return 1 where one does, else 0."""
    report, _ = load_report(report_dir)
    verdicts = judge(report, limits)
    for verdict in verdicts:
        _say_verdict(verdict, limits, console)
    broken = {verdict.case for verdict in verdicts if is_broken(verdict, limits)}
    total, bad = len(report.cases), len(broken)
    if total == 0:
        console.error(f"{report_dir}: no case was measured", "profile again")
    elif bad:
        console.error(f"{bad} of {total} cases break a limit", None)
    else:
        console.say(f"{total} of {total} cases keep to the limits")
    return 1 if bad or not total else 0


def _say_verdict(verdict: LimitVerdict, limits: Limits, console: Console) -> None:
    sentence = f"case {verdict.case}: {verdict.text}"
    if is_broken(verdict, limits):
        unmeasured = verdict.limit == "gpu" and verdict.state == "not measured"
        fix = "measure where the GPU is seen, or add --cpu where none is meant"
        console.error(sentence, fix if unmeasured else None)
    elif verdict.state == "not measured":
        console.say(sentence)


def draw_again(report_dir: Path, preset: str | None, console: Console) -> None:
    """Make CSV, page and pictures of a report anew."""
    tolerances = None if preset is None else tolerances_of(_limits(preset))
    report, folder = load_report(report_dir, tolerances)
    folder.write(report)
    _close(report, folder, console)


def _limits(preset: str | None) -> Limits:
    return Limits() if preset is None else preset_of(preset, conventions.presets())


def _folder(root: Path, name: str) -> ReportFolder:
    if safe_name(name) != name:
        raise UsageError(
            f"--name {name!r} is not a file name",
            fix=f"letters, digits, ., _ and -: {safe_name(Path(name).name)}",
        )
    folder = ReportFolder(root, name)
    folder.make()
    return folder


def _close(report: EfficiencyReport, folder: ReportFolder, console: Console) -> None:
    """Draw, and say what it came to."""
    with console.spinner("drawing the report"):
        draw(report, folder)
    for case in report.cases:
        official = case.official
        gpu = f"GPU {reading_text(official.max_gpu_mib, unit=' MiB')}"
        if not isinstance(official.max_gpu_mib, Unsupported):
            gpu += f", area {reading_text(official.gpu_area_mib_s, unit=' MiB s')}"
        memory = f"memory {reading_text(case.sampled_ram_mib, unit=' MiB')}"
        if not isinstance(case.kernel_peak_mib, Unsupported):
            peak = reading_text(case.kernel_peak_mib, unit=" MiB")
            of = "page cache included" if report.kind == "docker" else "of the largest process"
            memory += f" in the samples, {peak} at the kernel's own peak ({of})"
        console.say(f"{case.name}: {official.time_s:.2f} s, {gpu}, {memory}")
        if case.others_gpu_mib >= _OTHERS_MIB:
            console.say(
                f"warning: {case.name}: other processes used the GPU too, "
                f"{case.others_gpu_mib:.0f} MiB of its most: the official figures count them, "
                "limits do not"
            )
    console.say(f"report: {folder.root / 'efficiency.html'}")


def reading_text(reading: Reading, before: str = "", unit: str = "") -> str:
    """Return a figure in words."""
    if not isinstance(reading, float | int):
        return "not measured"
    return f"{before}{reading:.2f}{unit}" if reading < 1000 else f"{before}{reading:.0f}{unit}"
