"""What `flarekit predict --report` tells from inside: where the time of every case went."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError
from flarekit.profiler.records import InsideCase

STAGES = (
    "start",
    "import",
    "load",
    "compile",
    "read",
    "prepare",
    "plan",
    "tiles",
    "restore",
    "components",
    "write",
    "exit",
)
_ALSO_CALLED = {"rules": "components"}
_TRAITS = ("predictor", "mode", "engine", "device", "device_name", "precision")
LEDGER = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """A run as it saw itself.

    Attributes:
        seconds: time spent once, by stage.
        wall_s: from the start of the process to its last mask.
        cases: each of them.
        traits: what computed.
    """

    seconds: Mapping[str, float]
    wall_s: float
    cases: tuple[InsideCase, ...]
    traits: Mapping[str, str]

    def stages(self, wall_s: float, started_s: float | None) -> dict[str, float]:
        """Return all stages of the run, seen from outside.

        Args:
            wall_s: of the run, from outside.
            started_s: from the beginning of that to the start of the process; None if unknown.

        Returns:
            Stage -> seconds, `start` and `exit` among them; stages that overlap are counted both.
        """
        total: dict[str, float] = {}
        if started_s is not None:
            total["start"] = max(0.0, started_s)
        for seconds in (self.seconds, *(case.seconds for case in self.cases)):
            for name, value in seconds.items():
                total[name] = total.get(name, 0.0) + value
        if started_s is not None:
            total["exit"] = max(0.0, wall_s - started_s - self.wall_s)
        return {name: total[name] for name in ordered(total)}


def ordered(stages: Mapping[str, float]) -> list[str]:
    """Return stage names in the order they happen; unknown ones last."""
    known = [name for name in STAGES if name in stages]
    return known + [name for name in stages if name not in STAGES]


def read_step_times(path: Path) -> StepTimes:
    """Read the `run.json` of a run, and the ledger beside it.

    Raises:
        InputError: unreadable, or not that of a run.
    """
    try:
        content = json.loads(path.read_bytes())
        lines = path.with_name(LEDGER).read_text(encoding="utf-8").splitlines()
        return StepTimes(
            seconds=_stages(content["seconds"]),
            wall_s=float(content["wall_s"]),
            cases=tuple(_case(case) for case in map(json.loads, lines)),
            traits={name: str(content[name]) for name in _TRAITS if name in content},
        )
    except OSError as error:
        fault = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
    raise InputError(
        f"{path}: has no times of steps: {fault}", fix="let flarekit predict --report write it"
    )


def _stages(seconds: Mapping[str, Any]) -> dict[str, float]:
    return {_ALSO_CALLED.get(name, name): float(value) for name, value in seconds.items()}


def _case(case: Mapping[str, Any]) -> InsideCase:
    return InsideCase(
        case_id=str(case["case_id"]),
        seconds=_stages(case["seconds"]),
        wall_s=float(case["wall_s"]),
        traded=tuple(map(str, case.get("traded", ()))),
        error=case.get("error"),
    )
