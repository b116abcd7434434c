"""Inputs stay as they are: nothing that is written replaces a file of an input folder."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from flarekit.core.errors import UsageError
from flarekit.core.files import inputs_below


def keep_apart(
    input_dir: Path, output_dir: Path, written: Iterable[Path], *, what: str = "the input folder"
) -> None:
    """Refuse an output folder that is the input folder, or outputs that are files of it.

    However the paths are spelled: files and folders are the same where the file system says so,
    through links, mounts and names that differ only for the eye.

    Args:
        input_dir: the folder that is only read.
        output_dir: the folder that is written to; need not exist.
        written: what will be written, relative to the output folder.
        what: the folder that is read is, for the message.

    Raises:
        UsageError: naming the file that would be replaced.
    """
    inputs = _identity(input_dir)
    if inputs is not None and inputs == _identity(output_dir):
        raise UsageError(
            f"{output_dir}: is {what} ({input_dir})", fix=f"name a folder outside {what}"
        )
    keep_below(input_dir, [output_dir / path for path in written], what=what)


def keep_below(input_dir: Path, written: Iterable[Path], *, what: str = "the input folder") -> None:
    """Refuse to write what is a file of an input folder; new files may go into it.

    Args:
        input_dir: the folder that is only read; need not exist.
        written: what will be written.
        what: the folder is, for the message.

    Raises:
        UsageError: naming the file that would be replaced.
    """
    there = {path: identity for path in written if (identity := _identity(path))}
    if not there:
        return
    kept = set(_identities_below(input_dir))
    for path, identity in there.items():
        if identity in kept:
            raise UsageError(
                f"{path}: is a file of {what} ({input_dir}) and would be replaced",
                fix=f"name a folder outside {what}",
            )


def keep_files(files: Iterable[Path], written: Iterable[Path]) -> None:
    """Refuse to write what is one of the files that are read, however the paths are spelled.

    Raises:
        UsageError: naming the file that would be replaced.
    """
    kept = {_identity(path) for path in files} - {None}
    for path in written:
        if _identity(path) in kept:
            raise UsageError(f"{path}: is an input and would be replaced", fix="name another file")


def keep_inputs(inputs: Sequence[Path], folder: Path, written: Iterable[Path]) -> None:
    """Refuse to write over anything that was named as an input, or lies in a folder that was.

    Args:
        inputs: which are only read.
        folder: that is written to.
        written: what will be written, relative to it.

    Raises:
        UsageError: naming the file that would be replaced.
    """
    names = list(written)
    for path in inputs:
        if path.is_dir():
            keep_apart(path, folder, names)
    keep_files((path for path in inputs if not path.is_dir()), (folder / name for name in names))


def _identities_below(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield what tells the files below a folder, links to them followed."""
    for path in inputs_below(folder):
        identity = _identity(path)
        if identity is not None:
            yield identity


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from all others; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
