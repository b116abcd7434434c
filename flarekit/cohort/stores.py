"""Files behind URIs, by fsspec: what is there, what tells a version, and a copy for a while."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError, UsageError
from flarekit.core.extras import require

_BLOCK = 2**22
_TELLING = ("size", "ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified")


def _filesystem(uri: str) -> tuple[Any, str]:
    require("fsspec", "cluster")
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{uri}: cannot be opened: {error}", fix="install what fsspec names, or mount it"
        ) from error
    return filesystem, path


def files_at(uri: str) -> list[tuple[str, str]]:
    """Return the URIs of all files below a URI, with what tells their versions, sorted.

    Raises:
        InputError: it cannot be listed, or nothing is there.
        UsageError: nothing here opens such a URI.
    """
    filesystem, path = _filesystem(uri)
    try:
        found = filesystem.find(path, detail=True)
    except Exception as error:  # each store has errors of its own
        raise InputError(f"{uri}: cannot be listed: {error}", fix=_fix(uri)) from error
    if not found:
        raise InputError(f"{uri}: holds no files", fix=_fix(uri))
    return sorted((filesystem.unstrip_protocol(name), _tag(info)) for name, info in found.items())


def tag_of(uri: str) -> str:
    """Return what tells the version of a file; `missing` where there is none."""
    filesystem, path = _filesystem(uri)
    try:
        return _tag(filesystem.info(path))
    except Exception:  # noqa: BLE001 - reading it will say what is wrong
        return "missing"


def _tag(info: Any) -> str:  # noqa: ANN401 - of a store
    return json.dumps({name: str(info[name]) for name in _TELLING if name in info})


def read_text(uri: str) -> str:
    """Return the text of a file here or behind a URI.

    Raises:
        InputError: it cannot be read.
    """
    filesystem, path = _filesystem(uri)
    try:
        return str(filesystem.cat_file(path).decode("utf-8-sig"))
    except Exception as error:  # each store has errors of its own
        raise InputError(f"{uri}: cannot be read: {error}", fix=_fix(uri)) from error


@contextmanager
def copy_of(uri: str, name: str) -> Iterator[Path]:
    """Give a copy of a file for a while, in a temporary folder.

    Args:
        uri: of the file.
        name: of the copy, safe as a file's.

    Raises:
        InputError: it cannot be read.
    """
    filesystem, path = _filesystem(uri)
    with tempfile.TemporaryDirectory(prefix="flarekit-") as folder:
        target = Path(folder, name)
        try:
            with filesystem.open(path, "rb") as source, target.open("wb") as stream:
                while block := source.read(_BLOCK):
                    stream.write(block)
        except Exception as error:  # each store has errors of its own
            raise InputError(f"{uri}: cannot be read: {error}", fix=_fix(uri)) from error
        yield target


def _fix(uri: str) -> str:
    return f"see that {uri.partition('://')[0]} is reachable, and the address and rights are right"
