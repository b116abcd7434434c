"""JSON files that somebody else wrote: read whole, then typed; faults are named by field."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from flarekit.core.errors import InputError
from flarekit.core.text_files import read_text

_COPY = "copy it again from where it was made, whole"
_KINDS = ("int", "str", "float", "constrained-float", "constrained-int")  # pydantic names tries
_M = TypeVar("_M", bound=BaseModel)


def no_bool(value: object) -> object:
    """Refuse true and false where a number is wanted, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("is true or false, and should be a number")  # noqa: TRY004 - pydantic's
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object of finite numbers.

    Raises:
        InputError: it is missing, no JSON, or holds something else.
    """
    text = read_text(path, fix=_COPY)
    try:
        content = parse_json(text, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})", fix=_COPY) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, and should hold an object {{...}}",
            fix=_COPY,
        )
    return content


def parse_json(text: str, *, parse_constant: Callable[[str], Any] | None = None) -> Any:  # noqa: ANN401 - JSON is anything
    """Return what JSON says; a name that an object has twice is refused, as one would be lost.

    Args:
        text: of the whole file.
        parse_constant: takes NaN and infinities, as `json.loads` has it.

    Raises:
        ValueError: it is not JSON, or names something twice.
        RecursionError: its lists and objects lie in each other too deep.
    """
    return json.loads(text, parse_constant=parse_constant, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in content if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return content


def typed(model: type[_M], content: Mapping[str, Any], *, source: Path, inside: str = "") -> _M:
    """Check and type what is in a file.

    Args:
        model: what it should be.
        content: of the file, or of a part of it.
        source: the file.
        inside: name of that part.

    Raises:
        InputError: naming the file and what is wrong in it, field by field, three faults at most.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        faults = faults_of(error, inside)
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{source}: {'; '.join(faults[:3])}{more}",
            fix="correct that, or copy the file again from where it was made",
        ) from error


def faults_of(error: ValidationError, inside: str = "") -> list[str]:
    """Return what is wrong with each field: what was tried first, where it may be several things.

    Args:
        error: of a whole file, or of a part of it.
        inside: name of that part.
    """
    faults = dict[tuple[str, ...], str]()
    for fault in error.errors():
        parts = [str(part) for part in fault["loc"]]
        place = tuple(part for part in parts if part not in _KINDS and "[" not in part)
        where = ".".join([*([inside] if inside else []), *place]) or "the whole"
        said = f": {fault['msg'].removeprefix('Value error, ')}"
        if not isinstance(fault["input"], dict):
            said += f", not {str(fault['input'])[:40]!r}"
        faults.setdefault(place, where + (" is missing" if fault["type"] == "missing" else said))
    whole = {place[:n] for place in faults for n in range(1, len(place))}  # whose parts are named
    return [said for place, said in faults.items() if place not in whole]


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")
