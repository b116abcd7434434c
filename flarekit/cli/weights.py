"""`flarekit weights`: import checkpoints, verify and pack what is there."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flarekit.cli.help import App
from flarekit.cli.options import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn import Module

    from flarekit.importing import ImportOptions

app = App(help="Import checkpoints, check weights, and pack predictors for the platform.")


@dataclass(frozen=True, kw_only=True)
class Import:
    """How a checkpoint is imported; see `flarekit.importing.ImportOptions`."""

    name: str
    convention: str = "flare"
    folds: Any = None
    checkpoint: str = CHECKPOINT


@app.command("import")
def import_(
    source: Path,
    *,
    wanted: Import,
    output: Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> None:
    """Make a predictor folder from a checkpoint; nothing in it is executed."""
    from flarekit import conventions
    from flarekit.cli.console import Console, typed
    from flarekit.importing import ImportOptions
    from flarekit.segmentation.predictors import predictor_folders

    console, options = Console(quiet=quiet), ImportOptions(**vars(wanted))
    conventions.facts_of(options.convention)  # it is one
    folder = _folder_of(options.name, output, force=force)
    with console.spinner(f"importing {source.name}"):
        networks = _import(source, folder, options)
    count = sum(parameter.numel() for parameter in networks[0].parameters())
    console.say(f"{folder}: {len(networks)} network(s) of {count:,} parameters")
    console.say(f"complete {folder / 'CARD.md'}: data, licence, accuracy, limits")
    by_name = any(folder.samefile(each) for each in predictor_folders())
    name = options.name if by_name else folder
    console.say(f"next: {typed('predict', '-p', name, '-i', 'SCANS', '-o', 'MASKS')}")


def _folder_of(name: str, output: Path | None, *, force: bool) -> Path:
    """Return the folder of a new predictor.

    Raises:
        UsageError: the name is none of a folder.
        OutputError: it holds a predictor already.
    """
    from flarekit.core.errors import OutputError, UsageError
    from flarekit.core.names import safe_name
    from flarekit.segmentation.predictors import FOLDERS_VARIABLE, IMPORTED

    if output is None:
        output = Path(os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)[0] or IMPORTED)
    if safe_name(name) != name:
        raise UsageError(
            f"--name {name!r} cannot be the name of a folder",
            fix=f"letters, digits, ., _ and -: {safe_name(name)}",
        )
    folder = output / name
    if (folder / "predictor.toml").exists() and not force:
        raise OutputError(f"{folder}: holds a predictor already", fix="add --force to replace it")
    return folder


def _import(source: Path, folder: Path, options: ImportOptions) -> Sequence[Module]:
    """Import a checkpoint, load what was made of it, put that into place; return its networks."""
    from flarekit.core.apart import keep_apart, keep_below, keep_files
    from flarekit.importing import import_predictor
    from flarekit.segmentation.predictors import build_networks, find_predictor

    with tempfile.TemporaryDirectory(prefix="flarekit-importing-") as scratch:
        made = Path(scratch, options.name)
        import_predictor(source, made, options)
        networks = build_networks(find_predictor(str(made)))  # it is whole if it can be loaded
        targets = [folder / path.name for path in made.iterdir()]
        keep_files([source], targets)
        if source.is_dir():
            keep_apart(source, folder, [], what="the folder of the weights to import")
            keep_below(source, targets, what="the folder of the weights to import")
        _put(made, folder)
    return networks


def _put(made: Path, folder: Path) -> None:
    """Move a predictor into place; a card that somebody has completed stays."""
    from flarekit.core.files import make_folder, write_atomically

    make_folder(folder)
    for path in sorted(made.iterdir()):  # the facts, which have the hashes, come last
        if not (path.name == "CARD.md" and (folder / path.name).exists()):
            write_atomically(folder / path.name, path.read_bytes())


@app.command()
def verify(names: list[str] | None = None, trust: bool = False) -> None:
    """Compare weights with their hashes and load them; the exit code is 0 if all are whole."""
    from flarekit.core.errors import FlarekitError
    from flarekit.segmentation.predictors import check_whole, find_predictor, predictor_folders

    wrong = 0
    for name in names or [str(folder) for folder in predictor_folders()]:
        try:
            predictor = find_predictor(name, trust=trust)
            check_whole(predictor)
        except FlarekitError as error:
            wrong = error.exit_code
            typer.echo(f"{name}: {error}", err=True)
        else:
            typer.echo(f"{predictor.spec.name}: whole ({len(predictor.all_members)} file(s))")
    raise typer.Exit(wrong)


@app.command()
def pack(name: str, path: Path, trust: bool = False, quiet: bool = False) -> None:
    """Pack a predictor for the platform, which unpacks it to /opt/ml/model."""
    import io
    import tarfile

    from flarekit.cli.console import Console
    from flarekit.core.apart import keep_apart
    from flarekit.core.files import write_atomically
    from flarekit.segmentation.predictors import check_whole, find_predictor

    predictor = find_predictor(name, trust=trust)
    keep_apart(predictor.folder, path.parent, [Path(path.name)], what="the predictor's folder")
    console, stream = Console(quiet=quiet), io.BytesIO()
    with console.spinner(f"packing {predictor.spec.name}"):
        check_whole(predictor)
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1, dereference=True) as tar:
            for file in sorted(predictor.folder.rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    tar.add(file, arcname=file.relative_to(predictor.folder))
        write_atomically(path, stream.getvalue())
    console.say(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {predictor.spec.name}")
