"""Text files that somebody else wrote: read whole, of a size that can be, in UTF-8."""

import stat
from pathlib import Path

from flarekit.core.errors import FlarekitError, InputError

MOST_BYTES = 1 << 26  # facts, lists and points take less; more is read by mistake


def read_text(path: Path, *, fix: str, error: type[FlarekitError] = InputError) -> str:
    """Return the text of a file, without a byte order mark, its lines ended by a newline.

    Args:
        path: the file.
        fix: what to do where it cannot be read.
        error: what is raised.

    Raises:
        FlarekitError: of the kind asked for: it is missing, no file (a folder, a pipe, a device),
            larger than such a file can be, or not UTF-8.
    """
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise error(f"{path}: is a folder, and should be a file", fix=fix)
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for, a device never ends
            raise error(f"{path}: is a pipe or a device, and should be a file", fix=fix)
        if state.st_size > MOST_BYTES:
            raise error(
                f"{path}: has {state.st_size:,} bytes; such a file has {MOST_BYTES:,} at most",
                fix=fix,
            )
        content = path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}", fix=fix) from cause
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(
            f"{path}: is not text in UTF-8 (byte {cause.start} is {content[cause.start]:#04x})",
            fix="save it as UTF-8",
        ) from cause
    return text.replace("\r\n", "\n").replace("\r", "\n")
