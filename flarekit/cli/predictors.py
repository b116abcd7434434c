"""`flarekit predictors`."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.markup import escape

from flarekit.cli.console import Console
from flarekit.core.errors import FlarekitError
from flarekit.engine import Precision
from flarekit.segmentation.predictors import find_predictor, hash_state, predictor_folders

_MADE = {
    "nothing": "compiled before",
    "blob": "compiled for this processor",
    "all": "converted and compiled",
}


def list_predictors(*, as_json: bool) -> None:
    """Print every predictor at hand, broken ones with what is wrong with them."""
    rows = [_row(folder) for folder in predictor_folders()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = RichConsole(highlight=False, soft_wrap=True)
    for row in rows:
        console.print(f"[bold]{escape(row['name'])}[/bold]", escape(row.get("title", "")))
        for line in _lines(row):
            console.print(f"    {escape(line)}")


def _lines(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [f"broken: {row['error']}"]
    labels = ", ".join(f"{value} {name}" for name, value in row["labels"].items())
    parameters = f", {row['parameters']:,} parameters" if row["parameters"] else ""
    return [
        f"{row['architecture']}{parameters}, convention {row['convention']}",
        f"labels: {labels}",
        f"weights: {row['weights']}; card: {row['card'] or 'missing'}",
    ]


def _row(folder: Path) -> dict[str, Any]:
    try:
        predictor = find_predictor(str(folder))
    except FlarekitError as error:
        return {"name": folder.name, "error": str(error)}
    spec = predictor.spec
    return {
        "name": folder.name,
        "title": spec.title,
        "architecture": spec.architecture.name,
        "convention": spec.convention,
        "labels": spec.labels,
        "parameters": spec.weights.parameters,
        "weights": hash_state(predictor),
        "sha256": spec.weights.sha256,
        "card": str(predictor.card) if predictor.card.is_file() else None,
        "folder": str(folder),
    }


def compile_all(
    names: list[str], precision: Precision, console: Console, *, beside: bool, trust: bool = False
) -> int:
    """Compile predictors, all at hand where none is named; return the exit code."""
    from flarekit.segmentation.compiling import compile_predictor

    wrong = 0
    for name in names or [str(folder) for folder in predictor_folders()]:
        try:
            predictor = find_predictor(name, trust=trust)
            with console.spinner(f"compiling {predictor.spec.name}"):
                folder, made = compile_predictor(predictor, precision, beside=beside)
        except FlarekitError as error:
            wrong = error.exit_code
            console.error(f"{name}: {error.message}", error.fix)
        else:
            console.say(f"{name}: {_MADE[made]} ({folder})")
    return wrong
