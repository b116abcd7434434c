"""What somebody may wish of a case: how it is run, and clicks that correct it."""

from dataclasses import dataclass
from typing import Any

from flarekit.core.spec import Mode, PredictorSpec
from flarekit.service.problems import Problem
from flarekit.service.store import StoredCase

_MOST_CLICKS = 500


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a case is to be run.

    Attributes:
        predictor: its name.
        mode: as in `flarekit.load`.
        time_budget_s: as in `Segmenter.segment`.
    """

    predictor: str
    mode: Mode = "fast"
    time_budget_s: float | None = None

    def options(self) -> dict[str, Any]:
        """Return what a worker has to know."""
        return {"mode": self.mode, "time_budget_s": self.time_budget_s}


def check_clicks(case: StoredCase, spec: PredictorSpec, clicks: dict[str, Any]) -> None:
    """Refuse clicks that change nothing.

    Raises:
        Problem: the predictor takes none, there are too many, or one lies outside the scan.
    """
    if "clicks" not in [rule.name for rule in spec.rules]:
        raise Problem(
            422,
            f"{spec.name} has no rule that clicks change",
            fix="choose a predictor that takes clicks: see /v1/predictors",
        )
    if sum(map(len, clicks.values())) > _MOST_CLICKS:
        raise Problem(422, f"more than {_MOST_CLICKS} clicks", fix="send fewer")
    shape = case.result["shape"]
    for places in clicks.values():
        for place in places:
            if not all(0 <= at < size for at, size in zip(place, shape, strict=True)):
                raise Problem(
                    422,
                    f"a click lies outside the scan: {place}",
                    fix=f"the mask has shape {shape}",
                )
