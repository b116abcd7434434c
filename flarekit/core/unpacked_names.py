"""How files of unpacked archives are called in messages: by the archive, not by where they lie.

Archives that are named as inputs are unpacked into a temporary folder, which is gone when somebody
reads the message. The folder of each repeats the path of its archive, so that the way back needs
nothing but the text.
"""

import os
import re
import tempfile
from pathlib import Path

ROOT_PREFIX = "flarekit-unpacked-"
_RELATIVE, _ABSOLUTE = "relative", "absolute"
_OF_ROOT = rf"{ROOT_PREFIX}[a-z0-9_]{{8}}/\d+/(?:{_RELATIVE}/|{_ABSOLUTE}(?=/))"


def place_of(archive: Path, root: Path, number: int) -> Path:
    """Return the folder that an archive is unpacked into.

    Args:
        archive: as it was named.
        root: a temporary folder whose name begins with `ROOT_PREFIX`.
        number: of the archive in it.
    """
    if not archive.is_absolute() and ".." not in archive.parts:
        return root / str(number) / _RELATIVE / archive
    named = Path(os.path.abspath(archive))  # noqa: PTH100 - links stay as they were named
    return root / str(number) / _ABSOLUTE / named.relative_to(named.anchor)


def by_archive(text: str) -> str:
    """Return a message in which files of unpacked archives are called `study.zip/ct/IM0001`."""
    if ROOT_PREFIX not in text:
        return text
    folder = re.escape(tempfile.gettempdir().rstrip("/"))
    return re.sub(rf"(?:{folder}|[^\s'\"]*)/{_OF_ROOT}", "", text)
