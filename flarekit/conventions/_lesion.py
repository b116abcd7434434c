"""Which of a predictor's labels is the lesion, for organisers who want one."""

from collections.abc import Mapping

from flarekit.core.errors import PredictorError

_LESION_NAMES = ("lesion", "lesions", "tumor", "tumour", "tumors", "tumours")


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
            f"the convention wants one label, the lesion, and the predictor has {len(labels)}, of "
            f"which none is obviously that: {', '.join(labels)}",
            fix="choose a predictor of lesions with -p (flarekit predictors lists them), or write "
            'lesion = "NAME" under [convention_settings] in predictor.toml',
        )
    return found[0]
