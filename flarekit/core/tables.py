"""TOML tables that people write: read whole, then typed; faults are named by field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flarekit.core.errors import FlarekitError, PredictorError


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
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}", fix=fix) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise error(f"{path}: is not TOML: {cause}", fix="correct that line") from cause


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
        faults = "; ".join(
            f"{_place(inside, fault['loc'])}: {fault['msg']}" for fault in error.errors()[:3]
        )
        raise PredictorError(f"{source}: {faults}", fix="correct that") from error


def _place(inside: str, parts: tuple[int | str, ...]) -> str:
    names = [*([inside] if inside else []), *map(str, parts)]
    return ".".join(names) or "the whole"
