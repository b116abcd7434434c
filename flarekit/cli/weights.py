"""`flarekit weights`: import checkpoints, verify what is there."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import typer

from flarekit.cli.console import Console
from flarekit.core.apart import keep_apart
from flarekit.core.errors import FlarekitError, OutputError, UsageError
from flarekit.core.files import write_atomically
from flarekit.core.names import safe_name
from flarekit.importing import ImportOptions, import_predictor
from flarekit.segmentation.predictors import (
    FOLDERS_VARIABLE,
    build_networks,
    find_predictor,
    predictor_folders,
)


def import_weights(
    source: Path, parent: Path | None, options: ImportOptions, console: Console, *, force: bool
) -> None:
    """Import a checkpoint, then load the predictor once to see that it is whole."""
    if parent is None:
        added = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)[0]
        parent = Path(added) if added else Path("weights")
    if safe_name(options.name) != options.name:
        raise UsageError(
            f"--name {options.name!r} is no name of a folder",
            fix=f"letters, digits, ., _ and -: {safe_name(options.name)}",
        )
    folder = parent / options.name
    if (folder / "predictor.toml").exists() and not force:
        raise OutputError(f"{folder}: holds a predictor already", fix="add --force to replace it")
    import_predictor(source, folder, options)
    networks = build_networks(find_predictor(str(folder)))
    count = sum(parameter.numel() for parameter in networks[0].parameters())
    console.say(f"{folder}: {len(networks)} network(s) of {count:,} parameters")
    console.say(f"complete {folder / 'CARD.md'}: data, licence, accuracy, limits")


def pack_weights(name: str, path: Path, console: Console) -> None:
    """Write a predictor folder, what was compiled beside it included, as one file."""
    predictor = find_predictor(name)
    keep_apart(predictor.folder, path.parent, [Path(path.name)], what="the predictor's folder")
    for each in (predictor, predictor.locator):
        if each is not None:
            build_networks(each)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        for file in sorted(predictor.folder.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                tar.add(file, arcname=file.relative_to(predictor.folder))
    write_atomically(path, stream.getvalue())
    console.say(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {predictor.spec.name}")


def verify_weights(names: list[str]) -> int:
    """Hash and load predictors, all at hand where none is named; return the exit code."""
    wrong = 0
    for name in names or [str(folder) for folder in predictor_folders()]:
        try:
            predictor = find_predictor(name)
            build_networks(predictor)
            if predictor.locator is not None:
                build_networks(predictor.locator)
        except FlarekitError as error:
            wrong = error.exit_code
            typer.echo(f"{name}: {error}", err=True)
        else:
            typer.echo(f"{predictor.spec.name}: whole ({len(predictor.all_members)} file(s))")
    return wrong
