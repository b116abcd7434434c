"""What a predictor may say about its convention, and which of its labels is the lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flarekit.core.errors import PredictorError

_LESION_NAMES = ("lesion", "lesions", "tumor", "tumour", "tumors", "tumours")


class Settings(BaseModel):
    """Settings of one convention; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_S = TypeVar("_S", bound=Settings)


def checked(kind: type[_S], settings: Mapping[str, Any], convention: str) -> _S:
    """Check and type the settings of a convention.

    Raises:
        PredictorError: naming what is unknown or wrong, three faults at most.
    """
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'the whole'}: {fault['msg']}"
            for fault in error.errors()[:3]
        ]
        raise PredictorError(
            f"settings of the convention {convention!r}: {'; '.join(faults)}", fix="correct that"
        ) from error


def lesion_value(labels: Mapping[str, int], chosen: str | None) -> int:
    """Return the mask value that is the lesion, for organisers who want 0 and 1 only.

    Args:
        labels: label name -> value; of an unknown predictor (empty) it is 1.
        chosen: the label's name where the predictor says it.

    Raises:
        PredictorError: no such label, or none is obviously the lesion.
    """
    if chosen is not None and labels:
        if chosen not in labels:
            raise PredictorError(
                f"no label {chosen!r} to be the lesion", fix=f"one of: {', '.join(labels)}"
            )
        return labels[chosen]
    if len(labels) < 2:
        return next(iter(labels.values()), 1)
    found = [value for name, value in labels.items() if name.lower() in _LESION_NAMES]
    if len(found) != 1:
        raise PredictorError(
            f"which of the labels {', '.join(labels)} is the lesion is not clear",
            fix='set lesion = "NAME" for the convention',
        )
    return found[0]
