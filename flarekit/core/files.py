"""Files that are either complete or not there."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from flarekit.core.errors import FlarekitError, OutputError
from flarekit.core.unpacked_names import by_archive

_BREAKS = re.compile(r"[\t\n\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOT_OFFERED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


def write_atomically(path: Path, content: bytes) -> None:
    """Write where nobody sees it, then give it its name: even a kill leaves no half a file.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    with named_when_whole(path) as temporary:
        if not _write_unnamed(path.parent, temporary, content):
            temporary.write_bytes(content)


@contextlib.contextmanager
def named_when_whole(path: Path) -> Iterator[Path]:
    """Give another name to write a file under; it gets its own where that ends without an error.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    # not made from the target's name, which may be as long as the file system allows
    # and not of this process alone: machines that share a folder have the same process ids
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}",
            fix="check that the output folder exists, is writable and has space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_unnamed(folder: Path, name: Path, content: bytes) -> bool:
    """Write a file without a name and name it once it is whole; False where that is not offered.

    Linux drops an unnamed file with the process that writes it.
    """
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        return False
    try:
        descriptor = os.open(folder, flag | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno in _NOT_OFFERED:
            return False
        raise
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        try:
            os.link(f"/proc/self/fd/{descriptor}", name, follow_symlinks=True)
        except OSError:  # no /proc, or a file system that names nothing afterwards
            return False
    return True


@contextlib.contextmanager
def files_together(folder: Path, *, last: str) -> Iterator[Path]:
    """Give a folder to write files into that belong together, and move them when all are whole.

    After an error none of them has come to `folder`, and those that were there are as they were.

    Args:
        folder: where they go; made where it is missing.
        last: name of the file that comes last: the one that speaks of the others.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    was_there = folder.is_dir()
    make_folder(folder)
    made: Path | None = None
    try:
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
        yield made
        for path in sorted(made.iterdir(), key=lambda path: (path.name == last, path)):
            path.replace(folder / path.name)
    except FlarekitError as error:
        error.message = error.message.replace(f"{made}", f"{folder}")
        error.args = (error.message,)
        raise
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror or error}",
            fix="name a folder that can be written and has space",
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if not was_there:
            with contextlib.suppress(OSError):  # it holds what was made
                folder.rmdir()


def is_full(error: OSError) -> bool:
    """Return whether a disk without space, or a quota, is why writing failed.

    `shutil` tells of several files in one error, without a number.
    """
    kinds = (errno.ENOSPC, errno.EDQUOT)
    return error.errno in kinds or any(os.strerror(each) in str(error) for each in kinds)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there already is fine.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be made: {error.strerror}", fix="name a folder that can be written"
        ) from error


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_to_all(folder: Path) -> None:
    """Let every user read and write what is below a folder; links are left alone.

    Raises:
        OSError: something in it belongs to another user.
    """
    for path in (folder, *below(folder)):
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)


def below(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, as far as it can be opened; links are not followed."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in sorted(folders + files))


def inputs_below(folder: Path, faults: list[str] | None = None) -> list[Path]:
    """Return all files below a folder that somebody named, sorted.

    Links to files and to folders are followed, each folder once: what lies in the tree itself has
    the name that it has there, and links in circles end.

    Args:
        folder: to look through.
        faults: gets a sentence for each folder that cannot be opened.
    """

    def note(error: OSError) -> None:
        if faults is not None:
            faults.append(f"{error.filename}: cannot be read: {error.strerror}")

    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    linked = [folder]
    while linked:
        place = linked.pop(0)
        for parent, folders, files in os.walk(place, onerror=note):
            here = Path(parent)
            try:
                state = here.stat()
            except OSError as error:  # it went after it was listed
                note(error)
                continue
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            linked += sorted(here / name for name in folders if (here / name).is_symlink())
            found += [here / name for name in files]
    return sorted(found)


def locked_below(folder: Path, may: Callable[[Path, int], bool] | None = None) -> dict[Path, str]:
    """Return what of a folder and below it cannot be read: path -> name with mode and owner.

    Args:
        folder: to look through.
        may: tells of a path and rights (of `os.access`) whether one has them; this user by default.
    """
    found = {}
    for path in (folder, *below(folder)):
        if path.is_symlink():
            continue
        state = path.stat()
        is_folder = stat.S_ISDIR(state.st_mode)
        if not (may or os.access)(path, os.R_OK | os.X_OK if is_folder else os.R_OK):
            name = printable(path.relative_to(folder).as_posix()) + ("/" if is_folder else "")
            found[path] = f"{name} ({stat.filemode(state.st_mode)}, of user {state.st_uid})"
    return found


def printable(text: str) -> str:
    r"""Return text that consoles and files take.

    Bytes of names that are not UTF-8, and characters that would control a terminal, become `\xNN`;
    files of unpacked archives are called by their archive.
    """
    text = by_archive(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROLS.sub(_escaped, text)


def printable_name(text: str) -> str:
    """Return a file's or a case's name as consoles and tables take it, on one line."""
    return _BREAKS.sub(_escaped, printable(text))


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02x}"
