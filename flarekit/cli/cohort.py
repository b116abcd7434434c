"""`flarekit cohort`: what several processes or machines do of one cohort of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Segment many scans by several processes or machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Places = Annotated[
    list[Path], typer.Argument(help="Folders of reports, or ledgers, of parts of one cohort.")
]


@app.command()
def merge(
    places: Places,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write to; the first that is named by default."
        ),
    ] = None,
) -> None:
    """Make one ledger and one table of statistics of what shards left.

    Of a case that several ledgers have, the line counts that was written last. The exit code is 1
    where cases failed.
    """
    from flarekit.cli.console import Console
    from flarekit.cohort.merge import merge

    console, first = Console(), places[0]
    folder = output or (first if first.is_dir() else first.parent)
    merged = merge(places, folder)
    done = len(merged.lines) - len(merged.failed)
    console.say(f"{folder}: {done} of {len(merged.lines)} cases done, {len(merged.failed)} failed")
    for case_id in merged.failed:
        console.say(f"failed: {case_id}: {merged.lines[case_id]['error']}")
    raise typer.Exit(1 if merged.failed else 0)
