"""Text from headers, JSON, archives and options, made into file names and paths that are safe.

Nothing else in the package makes a path of text that somebody else wrote.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from flarekit.core.errors import InputError

LONGEST_NAME = 120  # characters; a file system takes 255 bytes, and endings are added
_DIGEST_CHARACTERS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_EDGES = "._-"  # hidden files, options, and endings that Windows drops
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_PATH = 4000  # characters
_LONGEST_PART_BYTES = 255


class UnsafePathError(InputError):
    """Text that, taken as a path, would lead out of its folder."""


def safe_name(text: object, *, otherwise: str = "unnamed") -> str:
    """Return text as the name of one file or folder.

    Letters and digits of ASCII, `.`, `_` and `-` stay; everything else becomes `_`, accents are
    dropped first. Text that had to be changed gets a digest of the original behind it, so that two
    texts never share a name. The same text always has the same name.

    Args:
        text: anything; its `str` is taken.
        otherwise: what the name begins with where nothing of the text is left.
    """
    original = str(text)
    plain = unicodedata.normalize("NFKD", original).encode("ascii", "ignore").decode("ascii")
    name = _UNSAFE.sub("_", plain).strip(_EDGES)
    if name == original and len(name) <= LONGEST_NAME and not _DEVICES.fullmatch(name):
        return name or otherwise
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()
    kept = name[: LONGEST_NAME - _DIGEST_CHARACTERS - 1].rstrip(_EDGES) or otherwise
    if _DEVICES.fullmatch(kept):
        kept = f"_{kept}"
    return f"{kept}-{digest[:_DIGEST_CHARACTERS]}"


def path_within(folder: Path, text: str, *, source: object) -> Path:
    """Return the path that text names below a folder.

    Args:
        folder: which the path must not leave; need not exist.
        text: a relative path with `/` (or, as Windows writes it, a backslash) between its parts.
        source: where the text comes from (a file, say), for the message.

    Raises:
        UnsafePathError: it is empty or absolute, has a part `..` or a character that no name can
            hold, is too long, or leads out of the folder by a symbolic link that is there.
    """
    shown = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."
    fix = "write a path below the folder, without .. and without a leading slash"
    parts = PurePosixPath(text.replace("\\", "/")).parts
    absolute = bool(parts) and (parts[0].startswith("/") or _DRIVE.match(parts[0]) is not None)
    if not parts or absolute or ".." in parts:
        raise UnsafePathError(f"{source}: the path {shown!r} leads out of its folder", fix=fix)
    if not all(map(_is_possible, parts)) or len(text) > _LONGEST_PATH:
        raise UnsafePathError(f"{source}: the path {shown!r} cannot be a file's name", fix=fix)
    path = folder.joinpath(*parts)
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # links in circles, names that are too long
        raise UnsafePathError(
            f"{source}: the path {shown!r} cannot be used: {error}", fix=fix
        ) from (error)
    if not inside:
        raise UnsafePathError(
            f"{source}: the path {shown!r} leads out of its folder by a symbolic link", fix=fix
        )
    return path


def _is_possible(part: str) -> bool:
    printable = all(character >= " " and character != "\x7f" for character in part)
    return printable and len(os.fsencode(part)) <= _LONGEST_PART_BYTES
