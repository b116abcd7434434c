"""The cases of a run: of the folder that was named, or of an archive, unpacked meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.archives import Unpacked, is_archive
from flarekit.core.errors import InputError

_MOST_NAMED = 3


@contextmanager
def cases_in(
    name: str, convention: Convention, inputs: Path, channel_count: int
) -> Iterator[Sequence[Case]]:
    """Give the cases of a folder, or of a zip or tar of one, which is unpacked meanwhile.

    Args:
        name: of the convention.
        convention: whose layout the folder has.
        inputs: which is only read.
        channel_count: of the predictor.

    Raises:
        InputError: no cases; archives in the folder are named where there are any, and the
            convention whose layout the folder has.
    """
    with Unpacked() as unpacked:
        folder = inputs
        if inputs.is_file() and is_archive(inputs):
            folder = _only_folder(unpacked.add(inputs))
        try:
            cases = convention.find_cases(folder, channel_count)
        except InputError as error:
            raise _with_archives(
                _with_fitting(error, name, folder, channel_count), folder
            ) from error
        try:
            yield cases
        finally:
            conventions.give_up(cases)


def _only_folder(folder: Path) -> Path:
    """Return the folder that archives are often made of, where it is all that one holds."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _with_fitting(error: InputError, name: str, folder: Path, channel_count: int) -> InputError:
    fitting = conventions.fitting(folder, channel_count, but=name)
    if not fitting:
        return error
    return InputError(
        f"{error.message}; the folder is laid out as {' or '.join(fitting)} wants it",
        fix=f"add --convention {fitting[0]}, or else {error.fix}",
    )


def _with_archives(error: InputError, folder: Path) -> InputError:
    names = [path.name for path in sorted(folder.glob("*")) if path.is_file() and is_archive(path)]
    if not names:
        return error
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return InputError(
        f"{error.message}; there are archives: {', '.join(names[:_MOST_NAMED])}{more}",
        fix=f"name the archive itself as input, or unpack it; or else {error.fix}",
    )
