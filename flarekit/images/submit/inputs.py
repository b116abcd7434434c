"""What a folder holds for an algorithm of grand-challenge.org: its cases, and their inputs.

A case is laid out as the platform mounts /input: a folder with one image for each image socket
(`images/SLUG/X.mha`), a file for each other socket (`NAME.json`), and maybe `inputs.json`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flarekit.conventions._platform_images import read_json
from flarekit.core.errors import InputError
from flarekit.core.metaheader import read_header

_LOG = logging.getLogger(__name__)
_LISTED = "inputs.json"
_SUFFIXES = (".mha", ".tif", ".tiff")
_LAYOUT = "lay it out as the platform mounts /input (images/SLUG/X.mha, NAME.json), or each case so"


@dataclass(frozen=True, kw_only=True)
class Socket:
    """One input or output of an algorithm.

    Attributes:
        slug: its name.
        path: of its folder (images) or file, relative to /input or /output.
        kind: what it is, as the platform words it ("Segmentation", "Float").
        super_kind: how it travels: "image", "value" or "file".
    """

    slug: str
    path: str
    kind: str
    super_kind: str

    def __str__(self) -> str:
        return f"{self.slug} ({self.path})"


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Inputs that an algorithm takes together, and the outputs that it then has."""

    inputs: tuple[Socket, ...]
    outputs: tuple[Socket, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.inputs))


@dataclass(frozen=True, kw_only=True)
class CaseFolder:
    """The inputs of one job.

    Attributes:
        name: of its folder.
        folder: where they are.
        nested: whether it is one of several, each in a folder of its own.
    """

    name: str
    folder: Path
    nested: bool


@dataclass(frozen=True, kw_only=True)
class Given:
    """What goes into a socket.

    Attributes:
        socket: which one.
        file: where it is.
        value: what the file says, for sockets that take values.
    """

    socket: Socket
    file: Path
    value: Any = None


def find_cases(input_dir: Path, interfaces: Sequence[Interface]) -> list[CaseFolder]:
    """Return the folder itself where it is laid out as a case, else its subfolders.

    Raises:
        InputError: no such folder, or nothing in it is laid out as a case.
    """
    if not input_dir.is_dir():
        raise InputError(f"{input_dir}: is not a folder", fix="name the input folder")
    if _is_case(input_dir, interfaces):
        return [CaseFolder(name=input_dir.resolve().name, folder=input_dir, nested=False)]
    visible = sorted(path for path in input_dir.iterdir() if not path.name.startswith("."))
    folders = [path for path in visible if path.is_dir()]
    if not any(_is_case(folder, interfaces) for folder in folders):
        raise InputError(f"{input_dir}: holds no inputs; {_wanted(interfaces)}", fix=_LAYOUT)
    for path in visible:
        if path not in folders:
            _LOG.warning("%s: belongs to no case and is left out", path)
    return [CaseFolder(name=folder.name, folder=folder, nested=True) for folder in folders]


def read_case(folder: Path, interfaces: Sequence[Interface]) -> tuple[Interface, tuple[Given, ...]]:
    """Return the interface whose inputs are what the folder holds, and these inputs.

    Raises:
        InputError: an input is missing, surplus or damaged; the message names sockets and files.
    """
    files = sorted(_files(folder))
    listed = _listed(folder / _LISTED)
    fits = [_Fit.of(interface, files, listed) for interface in interfaces]
    best = min(fits, key=lambda fit: len(fit.missing) + len(fit.surplus))
    if best.missing or best.surplus:
        raise InputError(f"{folder}: {best.fault}; {_wanted(interfaces)}", fix=_LAYOUT)
    given = (_given(folder, socket, taken) for socket, taken in best.taken)
    return best.interface, tuple(given)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """How far an interface and the files of a folder go together."""

    interface: Interface
    taken: list[tuple[Socket, list[PurePosixPath]]]
    surplus: list[PurePosixPath]

    @classmethod
    def of(
        cls, interface: Interface, files: Sequence[PurePosixPath], listed: dict[str, str]
    ) -> _Fit:
        taken = []
        for socket in interface.inputs:
            place = PurePosixPath(listed.get(socket.slug, socket.path))
            inside = [
                file
                for file in files
                if (place in file.parents if socket.super_kind == "image" else file == place)
            ]
            taken.append((socket, inside))
        claimed = {file for _, inside in taken for file in inside}
        surplus = [file for file in files if file not in claimed]
        return cls(interface=interface, taken=taken, surplus=surplus)

    @property
    def missing(self) -> list[Socket]:
        return [socket for socket, inside in self.taken if not inside]

    @property
    def fault(self) -> str:
        faults = []
        if self.missing:
            faults.append(f"has no file for {', '.join(map(str, self.missing))}")
        if self.surplus:
            faults.append(f"no socket takes {', '.join(map(str, self.surplus[:5]))}")
        return "; ".join(faults)


def _is_case(folder: Path, interfaces: Sequence[Interface]) -> bool:
    places = {socket.path for interface in interfaces for socket in interface.inputs}
    return any((folder / place).exists() for place in ("images", _LISTED, *places))


def _files(folder: Path) -> Iterator[PurePosixPath]:
    """Yield the visible files below a folder, links followed, but the list of sockets."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = PurePosixPath((Path(root) / name).relative_to(folder).as_posix())
            if not name.startswith(".") and str(path) != _LISTED:
                yield path


def _listed(path: Path) -> dict[str, str]:
    """Return where `inputs.json`, if there is one, says that sockets are: slug -> path."""
    if not path.is_file():
        return {}
    entries = read_json(path)
    places = {}
    for entry in entries if isinstance(entries, list) else [None]:
        stated = entry if isinstance(entry, dict) else {}
        socket = stated.get("socket") or stated.get("interface")  # the newer and the older name
        if not isinstance(socket, dict) or not {"slug", "relative_path"} <= socket.keys():
            raise InputError(
                f"{path}: does not list sockets",
                fix="give each a socket with slug and relative_path, or remove the file",
            )
        places[str(socket["slug"])] = str(socket["relative_path"])
    return places


def _given(folder: Path, socket: Socket, files: Sequence[PurePosixPath]) -> Given:
    if socket.kind.casefold() == "dicom image set":
        raise InputError(
            f"{folder}: socket {socket} takes a DICOM image set, which is not sent from here",
            fix="start this job on the algorithm's page",
        )
    file = folder / files[0]
    if socket.super_kind == "image":
        _check_image(folder, socket, files)
        return Given(socket=socket, file=file)
    if file.stat().st_size == 0:
        raise InputError(f"{file}: is empty (0 bytes)", fix=f"write socket {socket.slug} again")
    if socket.super_kind == "file" and file.suffix.lower() != ".json":
        return Given(socket=socket, file=file)
    value = _strict_json(file)
    if socket.super_kind == "file":
        return Given(socket=socket, file=file)
    if value is None:
        raise InputError(
            f"{file}: is null, which socket {socket.slug} does not take", fix="give it a value"
        )
    return Given(socket=socket, file=file, value=value)


def _check_image(folder: Path, socket: Socket, files: Sequence[PurePosixPath]) -> None:
    place = files[0].parent
    if len(files) > 1 or files[0].suffix.lower() not in _SUFFIXES:
        names = ", ".join(file.name for file in files[:5])
        raise InputError(
            f"{folder / place}: holds {names}; socket {socket.slug} takes one .mha or .tif image",
            fix="put exactly one image there",
        )
    file = folder / files[0]
    if file.suffix.lower() == ".mha":
        read_header(file)
    elif file.stat().st_size == 0:
        raise InputError(f"{file}: is empty (0 bytes)", fix="export it again")


def _strict_json(file: Path) -> Any:  # noqa: ANN401 - JSON is anything
    value = read_json(file)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{file}: holds NaN or infinity, which is not JSON", fix="write numbers or null"
        ) from error
    return value


def _wanted(interfaces: Sequence[Interface]) -> str:
    return f"the algorithm takes {' or '.join(map(str, interfaces))}"
