"""Trials of one image: chosen inputs under chosen conditions, and what lay in the folders after."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flarekit.containers import (
    Conditions,
    ImageFacts,
    Mount,
    ProcessResult,
    RefusedError,
    Run,
    RunLine,
    Sandbox,
)
from flarekit.core.files import locked_below, open_to_all
from flarekit.verification.leftovers import (
    differences,
    digests,
    open_to_others,
    take_links,
)

STRICTEST = Conditions(memory_mib=28 * 1024)
MODEL = "/opt/ml/model"


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is known of the image's task.

    Attributes:
        values: that a mask may hold, background included.
        time_s: most seconds for one case; None for no limit.
        user_inputs: a folder of inputs to run besides the generated ones; None for none.
        memory_mib: most memory of a run; the organiser's where None.
        gpus: of Docker's `--gpus`, for all runs.
        settings: of the convention, as the image's label states them; None where it does not.
        label_faults: what in the image's own label cannot be used.
    """

    values: frozenset[int]
    time_s: float | None = None
    user_inputs: Path | None = None
    memory_mib: int | None = None
    gpus: str | None = None
    settings: Mapping[str, Any] | None = None
    label_faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One run with its folders.

    Attributes:
        outcome: of the run.
        inputs: folder here that held the cases.
        outputs: folder here with what the run wrote.
        files: below it, sorted.
        touched: what the run added, changed or removed in its inputs, in words.
        locked: what it left that the user who verifies cannot read, in words.
        private: what it left that only its owner can read, in words.
        links: symbolic links that it left, in words; they are removed, and never followed.
    """

    outcome: ProcessResult
    inputs: Path
    outputs: Path
    files: tuple[str, ...]
    touched: tuple[str, ...]
    locked: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def failure(self) -> str | None:
        """Why it did not end well, in words; None where it did."""
        if self.outcome.not_started:
            return f"did not start: {self.outcome.not_started}"
        if self.outcome.timed_out:
            return f"was not done after {self.outcome.seconds:.0f} s"
        if self.outcome.out_of_memory:
            return "took more memory than there was"
        if self.outcome.exit_code:
            said = self.outcome.last_line or "nothing on stderr"
            return f"exit code {self.outcome.exit_code}: {said}"
        return None


class ImageUnderTest:
    """Runs trials of one image and keeps those that several checks look at.

    Args:
        sandbox: that runs it.
        run_line: the organiser's.
        task: what is known of it.
        sample: writes the generated inputs of the usual trial into a folder, given the task.
        scratch: folder for inputs and outputs.
        timeout_s: of one run.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        run_line: RunLine,
        task: TaskFacts,
        sample: Callable[[Path, TaskFacts], None],
        scratch: Path,
        *,
        timeout_s: float = 600.0,
    ) -> None:
        self.sandbox, self.run_line, self.task = sandbox, run_line, task
        self._sample: Callable[[Path], None] = lambda folder: sample(folder, task)
        self._scratch, self.timeout_s = scratch, timeout_s
        self._kept: dict[str, TrialResult] = {}
        self._folders: dict[str, Path] = {}
        self._count = 0

    @property
    def facts(self) -> ImageFacts:
        """What the image says about itself."""
        return self.sandbox.facts

    @property
    def conditions(self) -> Conditions:
        """Return the conditions of the organiser's command, with the GPUs and memory asked for."""
        return self._asked(self.run_line.conditions)

    @property
    def strictest(self) -> Conditions:
        """Return the strictest conditions: those of all organisers together."""
        return self._asked(STRICTEST)

    def _asked(self, conditions: Conditions) -> Conditions:
        memory_mib = self.task.memory_mib or conditions.memory_mib
        return replace(conditions, gpus=self.task.gpus, memory_mib=memory_mib)

    def base(self) -> TrialResult:
        """Return the usual trial: generated inputs, the organiser's line."""
        return self.kept("base", self._sample)

    def usual_inputs(self) -> Path:
        """Return a folder with the generated inputs of the usual trial."""
        return self.inputs("base", self._sample)

    def inputs(self, name: str, write: Callable[[Path], None]) -> Path:
        """Return a folder of inputs, written when it is first asked for."""
        if name not in self._folders:
            folder = self._scratch / f"inputs_{name}"
            folder.mkdir(parents=True)
            write(folder)
            self._folders[name] = folder
        return self._folders[name]

    def kept(self, name: str, write: Callable[[Path], None]) -> TrialResult:
        """Return a trial of named inputs under the organiser's line, run only once."""
        return self.once(name, lambda: self.trial(self.inputs(name, write)))

    def once(self, name: str, run: Callable[[], TrialResult]) -> TrialResult:
        """Return a trial that several checks look at, run when it is first asked for."""
        if name not in self._kept:
            self._kept[name] = run()
        return self._kept[name]

    def trial(
        self,
        inputs: Path,
        *,
        conditions: Conditions | None = None,
        prepare: Callable[[Path], None] | None = None,
        command: tuple[str, ...] | None = None,
        entrypoint: str | None = None,
        mounts: tuple[Mount, ...] = (),
        linked: Mapping[str, str] | None = None,
        writable_inputs: bool | None = None,
        terminate_after_s: float | None = None,
    ) -> TrialResult:
        """Run the image once.

        Args:
            inputs: folder here; the run gets a copy.
            conditions: the organiser's line's where None.
            prepare: puts something into the output folder beforehand.
            command: the organiser's where None.
            entrypoint: the image's where None.
            mounts: besides those of inputs and outputs.
            linked: symbolic links inside, see `Run`; inputs are then mounted where the link of the
                layout's folder points to.
            writable_inputs: the organiser's way where None.
            terminate_after_s: see `Run`.

        Raises:
            RefusedError: the sandbox cannot make these conditions.
            SandboxError: the sandbox cannot run it.
        """
        here, outputs = self._folders_of_trial(inputs, prepare)
        writable = self.run_line.writable_inputs if writable_inputs is None else writable_inputs
        seen_at = (linked or {}).get(self.run_line.inputs, self.run_line.inputs)
        run = Run(
            mounts=(
                Mount(here=here, there=seen_at, writable=writable),
                Mount(here=outputs, there=self.run_line.outputs, writable=True),
                *mounts,
            ),
            conditions=conditions or self.conditions,
            command=command or self.run_line.command,
            entrypoint=entrypoint,
            linked=linked or {},
            timeout_s=self.timeout_s,
            terminate_after_s=terminate_after_s,
        )
        refusal = self.sandbox.refuses(run)
        if refusal is not None:
            raise RefusedError(refusal, fix="verify where a Docker engine runs")
        before = digests(here)
        return self._what_it_left(self.sandbox.run(run), here, outputs, before)

    def _folders_of_trial(
        self, inputs: Path, prepare: Callable[[Path], None] | None
    ) -> tuple[Path, Path]:
        """Make the folders of one run, which anybody may read and write: inputs and outputs."""
        self._count += 1
        place = self._scratch / f"trial_{self._count}"
        here, outputs = place / "inputs", place / "outputs"
        shutil.copytree(inputs, here)
        outputs.mkdir()
        if prepare is not None:
            prepare(outputs)
        open_to_all(place)
        return here, outputs

    def _what_it_left(
        self, outcome: ProcessResult, here: Path, outputs: Path, before: Mapping[str, str]
    ) -> TrialResult:
        """Look at the folders of a run that is over, and open what it left locked."""
        locked, private = locked_below(outputs), locked_below(outputs, open_to_others)
        for folder in (here, outputs):
            if locked_below(folder):
                self.sandbox.open_up(folder)
        after = digests(here)
        links = take_links(outputs)
        return TrialResult(
            outcome=outcome,
            inputs=here,
            outputs=outputs,
            files=tuple(sorted(digests(outputs))),
            touched=tuple(differences(before, after)),
            locked=tuple(locked.values()),
            private=tuple(private.values()),
            links=tuple(links),
        )
