"""What an image's label `flarekit.facts` says of its task, which anybody may have written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from flarekit import conventions
from flarekit.containers import FACTS_LABEL, ImageFacts
from flarekit.core.errors import FlarekitError

_VALUES: TypeAdapter[tuple[int, ...]] = TypeAdapter(
    tuple[Annotated[int, Field(ge=0, le=255, strict=True)], ...]
)


@dataclass(frozen=True, kw_only=True)
class StatedTask:
    """What could be used of the label.

    Attributes:
        values: that masks may hold; None where the label does not say.
        settings: of the convention; None where the label does not say.
        faults: what in the label cannot be used, and is left aside.
    """

    values: tuple[int, ...] | None = None
    settings: Mapping[str, Any] | None = None
    faults: tuple[str, ...] = ()


def stated_task(facts: ImageFacts, convention: str) -> StatedTask:
    """Read the label of an image; what is wrong in it is left aside and named.

    Args:
        facts: the image's.
        convention: whose settings they are.
    """
    text = facts.labels.get(FACTS_LABEL)
    if text is None:
        return StatedTask()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return StatedTask(faults=(f"is not JSON ({error})",))
    if not isinstance(content, dict):
        return StatedTask(faults=(f"is not a JSON object but {text[:60]}",))
    faults: list[str] = []
    values = settings = None
    if content.get("values") is not None:
        try:
            values = _VALUES.validate_python(content["values"])
        except ValidationError:
            faults.append(f"values are {_short(content['values'])}, not integers from 0 to 255")
    if content.get("settings") is not None:
        settings = content["settings"]
        fault = _settings_fault(settings, convention)
        if fault is not None:
            faults.append(fault)
            settings = None
    return StatedTask(values=values, settings=settings, faults=tuple(faults))


def _settings_fault(settings: object, convention: str) -> str | None:
    if not isinstance(settings, dict):
        return f"settings are {_short(settings)}, not a JSON object"
    try:
        conventions.get(convention, settings)
    except FlarekitError as error:
        return error.message
    return None


def _short(value: object) -> str:
    return json.dumps(value)[:60]
