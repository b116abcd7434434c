"""Outputs of a job: where their sockets say, one image to a folder, whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

from flarekit.core.errors import OutputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.names import UnsafePathError, path_within
from flarekit.images.submit.errors import PlatformError
from flarekit.images.submit.inputs import Socket

_FIX = "name another output folder, or remove it"


def check_room(folder: Path, outputs: Sequence[Socket]) -> None:
    """Make a folder and check that the outputs of a job can go there.

    Raises:
        OutputError: it cannot be made or written, or one of them is there already.
    """
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written", fix="check its permissions")
    for socket in outputs:
        place = folder / socket.path
        if _names_in(place) if place.is_dir() else place.exists():
            raise OutputError(f"{place}: is there already", fix=_FIX)


def check_inside(socket: Socket) -> None:
    """Check that an output goes below the output folder.

    Raises:
        PlatformError: its path leads elsewhere.
    """
    try:
        path_within(Path("outputs"), socket.path, source=socket.slug)
    except UnsafePathError as error:
        raise PlatformError(
            f"output {socket} would be written elsewhere", fix="tell the algorithm's owners"
        ) from error


def place(staging: Path, socket: Socket, folder: Path) -> list[Path]:
    """Copy what was downloaded for an output to where it belongs, and return its files.

    Raises:
        PlatformError: nothing was.
        OutputError: it cannot be written, or a folder for one image holds another.
    """
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    if not files:
        raise PlatformError(f"output {socket} has no files", fix="look at the job's page")
    targets = [folder / file.relative_to(staging) for file in files]
    if socket.super_kind == "image":
        others = sorted(_names_in(folder / socket.path) - {target.name for target in targets})
        if others:
            raise OutputError(
                f"{folder / socket.path}: holds another image already ({', '.join(others[:5])})",
                fix=_FIX,
            )
    for file, target in zip(files, targets, strict=True):
        make_folder(target.parent)
        write_atomically(target, file.read_bytes())
    return targets


def _names_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
