"""Run steps one after the other, each in a process of its own and within its time.

The result is written again whenever a step tells something new, so that whatever ends the run
loses nothing that was measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
_LOOK_S = 0.1
_GRACE_S = 3.0  # a step that is told to end by its deadline gets this much longer, then is killed
_LOG_CHARACTERS = 3000
_USUAL_S = 240.0  # of a check whose steps take what they say; with more, each gets more


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every step is told.

    Attributes:
        device: `cuda` or `cpu`.
        quick: small sizes, to see that everything runs.
        work: folder for inputs and everything else that is not kept.
        out: folder for what is kept.
        predictors: those that are asked for.
        untrained: those among them with random weights, because theirs were not brought along.
        deadline: when the step is to end, of `time.time`.
    """

    device: str
    quick: bool
    work: str
    out: str
    predictors: tuple[str, ...]
    untrained: tuple[str, ...] = ()
    deadline: float = float("inf")

    @property
    def left_s(self) -> float:
        """How much time the step has left."""
        return self.deadline - time.time()


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of the check.

    Attributes:
        name: the worker runs `gpu.NAME`.
        most_s: how long it may take, of a check of four minutes.
        least_s: with less time left it is not begun.
        background: it runs beside the steps after it, which wait for what they need of it.
        without_compiler: nothing on PATH, CC unset.
        module: the worker runs `gpu.MODULE`; its name where None.
        arguments: of the module's `run`.
    """

    name: str
    most_s: float
    least_s: float = 4.0
    background: bool = False
    without_compiler: bool = False
    module: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    began: float
    limit_s: float
    result: Path
    log: Path


class Supervisor:
    """Runs steps and keeps the result.

    Args:
        settings: of the check.
        path: JSON file that gets everything.
        environment: of the steps' processes.
        seconds: of all steps together, from now on.
        facts: what stands in the result before the steps.
        say: gets a line for each step.
        worker: command that a step's name, settings file and result file are added to.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path,
        *,
        environment: Mapping[str, str],
        seconds: float,
        facts: Mapping[str, Any],
        say: Callable[[str], None] = print,
        worker: Sequence[str] = (sys.executable, str(WORKER)),
    ) -> None:
        self.settings = settings
        self.result: dict[str, Any] = {**facts, "steps": {}}
        self._path = path
        self._environment = dict(environment)
        self._began = time.time()
        self._end = self._began + seconds
        self._scale = max(1.0, seconds / _USUAL_S)
        self._say = say
        self._worker = list(worker)
        self._beside: list[_Running] = []
        self.write()

    def run(self, steps: Sequence[Step]) -> dict[str, Any]:
        """Run all steps that there is time for and return the result."""
        for step in steps:
            left_s = self._end - time.time()
            if left_s < step.least_s:
                self._state(step, {"state": "skipped", "why": f"{max(0, left_s):.0f} s were left"})
                continue
            running = self._begin(step, min(step.most_s * self._scale, left_s - 1))
            if step.background:
                self._beside.append(running)
                continue
            while not self._over(running):
                self._look_beside()
        for each in self._beside:
            if not self._over(each):
                self._finish(each, "ended: nothing needs it any more")
        self.result["seconds"] = round(time.time() - self._began, 1)
        self.write()
        return self.result

    def write(self) -> None:
        """Write the result, whole or not at all."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self.result, indent=1) + "\n")
        draft.replace(self._path)

    def _look_beside(self) -> None:
        time.sleep(_LOOK_S)
        self._beside = [each for each in self._beside if not self._over(each)]

    def _begin(self, step: Step, limit_s: float) -> _Running:
        work = Path(self.settings.work) / "steps"
        work.mkdir(parents=True, exist_ok=True)
        told, result, log = (work / f"{step.name}.{end}" for end in ("settings", "json", "log"))
        settings = replace(self.settings, deadline=time.time() + limit_s)
        told.write_text(json.dumps(asdict(settings)))
        environment = self._environment
        if step.without_compiler:
            empty = Path(self.settings.work) / "nothing"
            empty.mkdir(exist_ok=True)
            environment = {**environment, "PATH": str(empty)}
            for name in ("CC", "CXX"):
                environment.pop(name, None)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self._worker, step.module or step.name, str(told), str(result), *step.arguments],
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _Running(
            step=step,
            process=process,
            began=time.time(),
            limit_s=limit_s,
            result=result,
            log=log,
        )

    def _over(self, running: _Running) -> bool:
        """Take over what the step tells; end it when its time is up."""
        code = running.process.poll()
        late = time.time() - running.began > running.limit_s + _GRACE_S
        if code is None and not late and time.time() < self._end:
            self._state(running.step, {"state": "running", **_read(running.result)})
            return False
        self._finish(running, "killed: its time was up" if code is None else None)
        return True

    def _finish(self, running: _Running, ended: str | None) -> None:
        if ended is not None:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
        code = running.process.wait()
        told = _read(running.result)
        seconds = {"seconds": round(time.time() - running.began, 1)}
        if ended is None and code == 0:
            state: dict[str, Any] = {"state": "done", **seconds, **told}
        else:
            log = running.log.read_bytes().decode(errors="replace")[-_LOG_CHARACTERS:]
            kind = "failed" if ended is None else "cut"
            why = ended or f"exit code {code}"
            state = {"state": kind, "why": why, **seconds, "log": log, **told}
        self._state(running.step, state)
        why = f" ({state['why']})" if "why" in state else ""
        self._say(f"{running.step.name}: {state['state']} in {state['seconds']} s{why}")

    def _state(self, step: Step, state: dict[str, Any]) -> None:
        if state["state"] == "skipped":
            self._say(f"{step.name}: skipped ({state['why']})")
        if self.result["steps"].get(step.name) != state:
            self.result["steps"][step.name] = state
            self.write()


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told
