"""A locator's place: in the folder of its predictor, named in that one's facts by its hash."""

import re
import shutil
from pathlib import Path

from flarekit.core.errors import FlarekitError, OutputError, UsageError
from flarekit.core.files import sha256_of, write_atomically
from flarekit.core.spec import PredictorFolder, read_spec

_FACTS, _WEIGHTS = "predictor.toml", "model.safetensors"
_MARGIN_MM = 25.0  # around what a locator that was learnt from masks may have found
_HASH = re.compile(r'(^\[locator\][^\[]*?^sha256\s*=\s*)"[0-9a-f]{64}"', re.MULTILINE | re.DOTALL)


def refuse_to_replace(predictor: PredictorFolder, *, replace: bool) -> None:
    """Raise where a predictor has a locator that was not asked to be replaced.

    Raises:
        UsageError: it has one.
    """
    folder = _place(predictor)
    if (predictor.locator is not None or folder.exists()) and not replace:
        raise UsageError(
            f"{folder}: is there already",
            fix="add --replace; the one that is there is then kept beside it",
        )


def add_locator(predictor: PredictorFolder, made: Path, *, replace: bool = False) -> Path:
    """Bring a locator into its predictor's folder and name it in the predictor's facts.

    Args:
        predictor: whose labels it locates.
        made: predictor folder of the locator; moved.
        replace: a locator that is there is kept as `locator.before`, `locator.before-2`, ...

    Returns:
        Where it is now.

    Raises:
        UsageError: the predictor has a locator, and `replace` is False.
        PredictorError: they do not fit together; everything is as before then.
        OutputError: the predictor's folder cannot be written; everything is as before then.
    """
    refuse_to_replace(predictor, replace=replace)
    folder, facts = _place(predictor), predictor.folder / _FACTS
    text = facts.read_text(encoding="utf-8")
    sha256, before = sha256_of(made / _WEIGHTS), _free(folder)
    if predictor.spec.locator is None:
        named = f'{text.rstrip()}\n\n[locator]\nsha256 = "{sha256}"\nmargin_mm = {_MARGIN_MM}\n'
    else:
        named = _HASH.sub(rf'\g<1>"{sha256}"', text)
    is_old = folder.exists()
    try:
        if is_old:
            folder.rename(before)
        shutil.move(made, folder)
        write_atomically(facts, named.encode())
        read_spec(predictor.folder)
    except (FlarekitError, OSError) as error:
        if folder.exists() and (before.exists() or not is_old):
            shutil.move(folder, made)
        if before.exists():
            before.rename(folder)
        if facts.read_text(encoding="utf-8") != text:
            write_atomically(facts, text.encode())
        if isinstance(error, OSError):
            raise OutputError(
                f"{predictor.folder}: cannot be written: {error.strerror or error}",
                fix="copy the predictor to a folder of your own, and name that",
            ) from error
        raise
    return folder


def _place(predictor: PredictorFolder) -> Path:
    named = predictor.spec.locator
    return predictor.folder / ("locator" if named is None else named.folder)


def _free(folder: Path) -> Path:
    """Return a name beside a folder that nothing has."""
    before, number = folder.with_name(f"{folder.name}.before"), 2
    while before.exists():
        before, number = folder.with_name(f"{folder.name}.before-{number}"), number + 1
    return before
