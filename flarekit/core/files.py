"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from flarekit.core.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name beside the target, then rename.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    # not made from the target's name, which may be as long as the file system allows
    temporary = path.with_name(f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}",
            fix="check that the output folder exists, is writable and has space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
