"""`flarekit profile`: what a command or a container costs, and whether that is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flarekit.cli.help import App
from flarekit.cli.options import ImageConvention, InputDir, OutputDir, spread
from flarekit.cli.run_line import JOBS, RunLine, line_of

if TYPE_CHECKING:
    from flarekit.cli.console import Console
    from flarekit.core.readings import Reading
    from flarekit.profiler.folder import ReportFolder
    from flarekit.profiler.limits import Limits
    from flarekit.profiler.records import EfficiencyReport, ProfiledCase

app = App(help="Measure what the organisers measure; enforce their limits.")

_ReportDir = Annotated[
    Path, typer.Argument(metavar="REPORT_DIR", help="Folder that flarekit profile has made.")
]
_Preset = Annotated[
    str | None,
    typer.Option(
        help="Limits of an edition of a challenge, for example flare23; "
        "`flarekit conventions NAME` lists those of a convention."
    ),
]
_Gpu = Annotated[str, typer.Option(help="Index or UUID of the GPU to watch, as nvidia-smi says.")]
_OTHERS_MIB = 1.0
_Timeout = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds after which a run is ended.")
]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", help="Command to run, with its arguments."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the run in the report; by default the program's.")
    ] = None,
    preset: _Preset = None,
    gpu: _Gpu = "0",
    timeout: _Timeout = None,
) -> None:
    """Watch any command; the exit code is the command's own.

    `flarekit predict --report REPORT_DIR` inside the command adds its stage times.
    """
    from flarekit.cli.console import Console
    from flarekit.profiler.command import CommandTarget
    from flarekit.profiler.environment import environment
    from flarekit.profiler.folder import new_report
    from flarekit.profiler.limits import tolerances_of
    from flarekit.profiler.loop import WatchOptions, profile_command

    console = Console()
    title = name or Path(command[0]).name
    folder = _folder(output, title)
    facts = environment(gpu)
    report = new_report(title, "command", tuple(command), tolerances_of(_limits(preset)), facts)
    folder.write(report)
    options = WatchOptions(gpu=gpu, timeout_s=timeout)
    report = profile_command(CommandTarget(command), folder, report, options, folder.json)
    _close(report, folder, console)
    code = report.cases[0].exit_code
    raise typer.Exit(124 if code is None else code)


@app.command()
@spread
def docker(
    image: Annotated[
        str, typer.Argument(help="Name and tag of the image, as docker image ls shows them.")
    ],
    input_dir: InputDir,
    output_dir: OutputDir,
    report_dir: Annotated[Path, typer.Option("--report", help="Folder for the report.")],
    *,
    convention: ImageConvention = None,
    run_line: RunLine,
    timeout: _Timeout = 600.0,
    preset: _Preset = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Index or UUID of the GPU to watch; by default that of --gpus."),
    ] = None,
) -> None:
    """Run the organisers' loop: one case, or one job of a platform, at a time."""
    from flarekit.cli.console import Console
    from flarekit.core.apart import keep_apart
    from flarekit.profiler.case_folders import CaseFolders, find_jobs, find_scans
    from flarekit.profiler.container import (
        INSIDE,
        ContainerOptions,
        ContainerTarget,
        check_engine,
    )
    from flarekit.profiler.environment import environment
    from flarekit.profiler.folder import new_report
    from flarekit.profiler.job_folders import job_folders
    from flarekit.profiler.limits import tolerances_of
    from flarekit.profiler.loop import WatchOptions, profile_scans
    from flarekit.profiler.scan_kinds import ending_of

    console = Console()
    jobs = bool(job_folders(input_dir))
    scans = find_jobs(input_dir) if jobs else find_scans(input_dir)
    keep_apart(input_dir, output_dir, [Path(scan.output) for scan in scans])
    keep_apart(input_dir, report_dir, [])
    organiser = line_of(convention, JOBS if jobs else str(ending_of(scans[0].path)))
    limits = _limits(preset)
    options = ContainerOptions.of(
        organiser, image, **vars(run_line), edition_mib=None if preset is None else limits.ram_mib
    )
    watched = gpu if gpu is not None else options.watched_gpu
    facts = environment(watched, check_engine(image))
    name = options.team
    folder = _folder(report_dir, name)
    line = options.line(
        name,
        {
            Path("$PWD/inputs"): options.inputs,
            Path("$PWD/outputs"): options.outputs,
        },
    )
    report = new_report(name, "docker", tuple(line), tolerances_of(limits), facts)
    folder.write(report)

    def make(work: CaseFolders, log: Path) -> ContainerTarget:
        return ContainerTarget(
            options, work.volumes(options.inputs, options.outputs, None if jobs else INSIDE), log
        )

    def on_case(case: ProfiledCase) -> None:
        console.say(f"{case.name}: {case.official.time_s:.2f} s")
        for failure in case.failures:
            console.error(f"case {case.name}: {failure}", f"see {folder.log(case.name)}")

    watch = WatchOptions(gpu=watched, timeout_s=timeout)
    report = profile_scans(scans, make, output_dir, folder, report, watch, on_case)
    _close(report, folder, console)
    raise typer.Exit(1 if report.failed else 0)


@app.command()
def check(
    report_dir: _ReportDir,
    max_time: Annotated[
        float | None, typer.Option(help="Seconds that a case may take; by default 15.")
    ] = None,
    max_gpu_mib: Annotated[
        float | None, typer.Option(help="MiB that may be in use on the GPU; by default 4096.")
    ] = None,
    max_ram_mib: Annotated[
        float | None,
        typer.Option(
            help="MiB that the container or process tree may use; by default there is no limit."
        ),
    ] = None,
    cpu: Annotated[
        bool,
        typer.Option(
            "--cpu", help="The submission uses no GPU, so limits of GPU memory are left out."
        ),
    ] = False,
    preset: _Preset = None,
) -> None:
    """Name every case and limit it breaks; exit 1 if there is one.

    A figure that could not be measured fails a limit that was asked for: by its own option or, for
    GPU memory, by a preset, unless --cpu says that no GPU is meant.
    """
    from dataclasses import replace

    from flarekit.cli.console import Console
    from flarekit.core.errors import UsageError
    from flarekit.profiler.limits import is_broken, judge
    from flarekit.profiler.load_report import load_report

    console = Console()
    asked = {"time_s": max_time, "gpu_mib": max_gpu_mib, "ram_mib": max_ram_mib}
    given = {key: value for key, value in asked.items() if value is not None}
    required = frozenset(key.partition("_")[0] for key in given)
    if cpu and max_gpu_mib is not None:
        raise UsageError("--cpu and --max-gpu-mib contradict each other", fix="give one of them")
    chosen = _limits(preset)
    if cpu:
        chosen = replace(chosen, gpu_mib=None)
    elif preset is not None and chosen.gpu_mib is not None:
        required |= {"gpu"}
    limits = replace(
        chosen,
        time_s=given.get("time_s", chosen.time_s),
        gpu_mib=given.get("gpu_mib", chosen.gpu_mib),
        ram_mib=given.get("ram_mib", chosen.ram_mib),
        required=required,
    )
    report, _ = load_report(report_dir)
    verdicts = judge(report, limits)
    broken = [verdict for verdict in verdicts if is_broken(verdict, limits)]
    for verdict in verdicts:
        if verdict in broken:
            unmeasured = verdict.limit == "gpu" and verdict.state == "not measured"
            fix = "measure where the GPU is seen, or add --cpu where none is meant"
            console.error(f"case {verdict.case}: {verdict.text}", fix if unmeasured else None)
        elif verdict.state == "not measured":
            console.say(f"case {verdict.case}: {verdict.text}")
    total, bad = len(report.cases), len({verdict.case for verdict in broken})
    if total == 0:
        console.error(f"{report_dir}: no case was measured", "profile again")
    elif bad:
        console.error(f"{bad} of {total} cases break a limit", None)
    else:
        console.say(f"{total} of {total} cases keep to the limits")
    raise typer.Exit(1 if bad or not total else 0)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of the first report.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of the second report.")],
) -> None:
    """Print both reports' figures case by case, and B over A."""
    from flarekit.cli.columns import aligned
    from flarekit.profiler.compare import compare as side_by_side
    from flarekit.profiler.load_report import load_report

    result = side_by_side(load_report(first)[0], load_report(second)[0])
    rows = [
        [pair.case, pair.figure, _text(pair.first), _text(pair.second), _text(pair.ratio, "x ")]
        for pair in result.pairs
    ]
    header = ["case", "figure", str(first), str(second), "B / A"]
    for line in aligned(header, rows, names=2):
        typer.echo(line)
    for folder, names in ((first, result.only_first), (second, result.only_second)):
        if names:
            typer.echo(f"only in {folder}: {', '.join(names)}")


@app.command()
def report(report_dir: _ReportDir, preset: _Preset = None) -> None:
    """Draw a report again: CSV, page and pictures.

    Also makes one of a folder with the JSON files that FLARE's own script left.
    """
    from flarekit.cli.console import Console
    from flarekit.profiler.limits import tolerances_of
    from flarekit.profiler.load_report import load_report

    tolerances = None if preset is None else tolerances_of(_limits(preset))
    content, folder = load_report(report_dir, tolerances)
    folder.write(content)
    _close(content, folder, Console())


def _limits(preset: str | None) -> Limits:
    from flarekit import conventions
    from flarekit.conventions.facts import preset_of
    from flarekit.profiler.limits import Limits

    return Limits() if preset is None else preset_of(preset, conventions.presets())


def _folder(root: Path, name: str) -> ReportFolder:
    from flarekit.core.errors import UsageError
    from flarekit.core.names import safe_name
    from flarekit.profiler.folder import ReportFolder

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
    from flarekit.core.readings import Unsupported
    from flarekit.profiler.folder import draw

    draw(report, folder)
    for case in report.cases:
        official = case.official
        gpu = f"GPU {_text(official.max_gpu_mib, unit=' MiB')}"
        if not isinstance(official.max_gpu_mib, Unsupported):
            gpu += f", area {_text(official.gpu_area_mib_s, unit=' MiB s')}"
        memory = f"memory {_text(case.sampled_ram_mib, unit=' MiB')}"
        if not isinstance(case.kernel_peak_mib, Unsupported):
            peak = _text(case.kernel_peak_mib, unit=" MiB")
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


def _text(reading: Reading, before: str = "", unit: str = "") -> str:
    if not isinstance(reading, float | int):
        return "not measured"
    return f"{before}{reading:.2f}{unit}" if reading < 1000 else f"{before}{reading:.0f}{unit}"
