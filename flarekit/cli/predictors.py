"""`flarekit predictors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flarekit.core.errors import FlarekitError
from flarekit.pipeline.predictors import find_predictor, hash_state, predictor_folders


def list_predictors(*, as_json: bool) -> None:
    """Print every predictor at hand, broken ones with what is wrong with them."""
    rows = [_row(folder) for folder in predictor_folders()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for column in ("name", "architecture", "convention", "parameters", "weights"):
        table.add_column(column, no_wrap=True)
    table.add_column("labels", overflow="fold")
    table.add_column("card", overflow="fold")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], "", "", "", "broken", row["error"], "")
            continue
        labels = f"{len(row['labels'])}: {', '.join(row['labels'])}"
        table.add_row(
            row["name"],
            row["architecture"],
            row["convention"],
            f"{row['parameters']:,}",
            row["weights"],
            labels,
            row["card"] or "missing",
        )
    Console().print(table)


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
