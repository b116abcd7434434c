"""TOML tables that people write: read whole, then typed; faults are named by field."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flarekit.core.errors import FlarekitError, PredictorError
from flarekit.core.json_files import faults_of
from flarekit.core.text_files import read_text


def _in_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    if text != text.strip():
        raise ValueError("begins or ends with a blank")
    return text


def _no_background(text: str) -> str:
    if text.lower() == "background":
        raise ValueError("background is 0 and not listed")
    return text


Name = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_in_one_line)]
Title = Annotated[str, Field(max_length=1000), AfterValidator(_in_one_line)]
LabelName = Annotated[Name, AfterValidator(_no_background)]


class Table(BaseModel):
    """A table whose fields are all known; what is unknown, or not finite, is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_T = TypeVar("_T", bound=Table)


def read_toml(
    path: Path, *, fix: str, error: type[FlarekitError] = PredictorError
) -> tuple[str, dict[str, Any]]:
    """Return a TOML file's text and its content.

    Args:
        path: the file.
        fix: what to do where it cannot be read.
        error: what is raised.

    Raises:
        FlarekitError: of the kind asked for: the file cannot be read, or is not TOML.
    """
    text = read_text(path, fix=fix, error=error)
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise error(f"{path}: is not TOML: {cause}", fix="correct that line") from cause
    except (ValueError, RecursionError) as cause:  # endless numbers, lists in lists in lists
        raise error(f"{path}: cannot be read as TOML: {cause}", fix=fix) from cause


def checked(model: type[_T], content: Mapping[str, Any], *, source: str, inside: str = "") -> _T:
    """Check and type a table.

    Args:
        model: what it should be.
        content: of the table.
        source: where it stands, for the message.
        inside: name of the table in its file; empty where it is the whole file.

    Raises:
        PredictorError: naming the fields that are missing, unknown or out of range, three at most.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(faults_of(error, inside)[:3])
        raise PredictorError(f"{source}: {faults}", fix="correct that") from error
