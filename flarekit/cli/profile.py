"""`flarekit profile`: what a command or a container costs, and whether that is allowed."""

from pathlib import Path

import typer

from flarekit.cli.help import App
from flarekit.cli.options import Timeout
from flarekit.cli.profile_requests import Allowed, ImageRun, RunLine, Watching

app = App(help="Measure what the organisers measure, and enforce their limits.")


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: list[str],
    output: Path,
    name: str | None = None,
    preset: str | None = None,
    gpu: str = "0",
    timeout: Timeout = None,
) -> None:
    """Measure any command; the exit code is the command's own.

    Where the command calls `flarekit predict --report REPORT_DIR` with the folder of this report,
    the times of the steps of every case are added.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.profiling import watch_command
    from flarekit.profiler.loop import WatchOptions

    options = WatchOptions(gpu=gpu, timeout_s=timeout)
    title = name or Path(command[0]).name
    raise typer.Exit(watch_command(command, output, title, preset, options, Console()))


@app.command()
def docker(run: ImageRun, *, run_line: RunLine, watching: Watching) -> None:
    """Measure an image as the organisers do: one case, or one job of a platform, at a time."""
    from flarekit.cli.console import Console
    from flarekit.cli.profiling import profile_image

    raise typer.Exit(profile_image(run, run_line, watching, Console()))


@app.command()
def check(report_dir: Path, *, allowed: Allowed) -> None:
    """Compare a report with limits: name each case that breaks one, and exit with 1 if any does.

    A figure that could not be measured fails a limit that was asked for: by its own option or, for
    GPU memory, by a preset, unless --cpu says that no GPU is meant.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.profiling import check_report, limits_to_check

    raise typer.Exit(check_report(report_dir, limits_to_check(allowed), Console()))


@app.command()
def compare(first: Path, second: Path) -> None:
    """Compare two reports: the figures of both, case by case, and the ratio of B to A."""
    from flarekit.cli.columns import aligned
    from flarekit.cli.profiling import reading_text
    from flarekit.profiler.compare import compare as side_by_side
    from flarekit.profiler.load_report import load_report

    result = side_by_side(load_report(first)[0], load_report(second)[0])
    rows = [
        [
            pair.case,
            pair.figure,
            reading_text(pair.first),
            reading_text(pair.second),
            reading_text(pair.ratio, "x "),
        ]
        for pair in result.pairs
    ]
    header = ["case", "figure", str(first), str(second), "B / A"]
    for line in aligned(header, rows, names=2):
        typer.echo(line)
    for folder, names in ((first, result.only_first), (second, result.only_second)):
        if names:
            typer.echo(f"only in {folder}: {', '.join(names)}")


@app.command()
def report(report_dir: Path, preset: str | None = None) -> None:
    """Write the CSV, page and pictures of a report again.

    Also makes a report from a folder with the JSON files of FLARE's own script.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.profiling import draw_again

    draw_again(report_dir, preset, Console())
