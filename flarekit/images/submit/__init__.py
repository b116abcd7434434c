"""Run cases on an algorithm of grand-challenge.org: start jobs, wait, fetch what they made.

Several jobs wait side by side; one that fails does not take the others along. A job belongs to the
platform once it is started: whatever ends the wait, it goes on, and can be fetched later.
"""

import shlex
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from flarekit.core.errors import FlarekitError, UsageError
from flarekit.images.submit.inputs import CaseFolder, find_cases, read_case
from flarekit.images.submit.outputs import check_room
from flarekit.images.submit.platform import API_URL, Algorithm, Platform, connect
from flarekit.images.submit.wait import JobOutcome, Listener, Pace, Waiting

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to run, and where.

    Attributes:
        algorithm: its slug.
        output_dir: for the outputs, or for a folder of them per case.
        input_dir: one case, or a folder with a subfolder per case.
        job: instead: a job that is there already, to wait for and fetch.
        url: of the platform's API.
        timeout_s: that a job may take once it is started, or from now where it is there already.
        pace: how often the platform is asked.
    """

    algorithm: str
    output_dir: Path
    input_dir: Path | None = None
    job: str | None = None
    url: str = API_URL
    timeout_s: float = 7200.0
    pace: Pace = field(default_factory=Pace)


def submit(request: Request, listener: Listener) -> list[JobOutcome]:
    """Run every case of a folder, or fetch a job; return what became of each, in order.

    Raises:
        UsageError: an option that makes no sense; gcapi or the token is missing.
        InputError: there are no cases.
        PlatformError: the platform refuses the token, or has no such algorithm or job.
        OutputError: the output folder cannot be made.
    """
    _check(request)
    with connect(request.url, retry_s=request.pace.retry_s) as platform:
        algorithm = platform.algorithm(request.algorithm)
        run = _Run(request, listener, platform, algorithm)
        if request.input_dir is not None:
            return run.start_and_wait(find_cases(request.input_dir, algorithm.interfaces))
        return run.wait_for_job(str(uuid.UUID(request.job)))


def _check(request: Request) -> None:
    if (request.input_dir is None) == (request.job is None):
        raise UsageError("either --input or --job is needed", fix="give one of them")
    if not request.algorithm or "/" in request.algorithm:
        raise UsageError(
            f"{request.algorithm!r} is not an algorithm's name",
            fix="give the last part of the address of its page",
        )
    if request.job is not None:
        try:
            uuid.UUID(request.job)
        except ValueError as error:
            raise UsageError(
                f"--job {request.job}: is not a job's identifier",
                fix="give the last part of the address of its page",
            ) from error
    if request.input_dir is not None:
        input_dir = request.input_dir.resolve()
        if request.output_dir.resolve().is_relative_to(input_dir):
            raise UsageError(
                f"{request.output_dir}: is inside the input folder", fix="name one beside it"
            )


class _Run:
    """The jobs of one request."""

    def __init__(
        self, request: Request, listener: Listener, platform: Platform, algorithm: Algorithm
    ) -> None:
        self._request, self._listener = request, listener
        self._platform, self._algorithm = platform, algorithm

    def wait_for_job(self, pk: str) -> list[JobOutcome]:
        """Wait for a job that is there already."""
        job = self._platform.job(pk)
        if job.algorithm != self._algorithm.api_url:
            raise UsageError(
                f"job {pk} is not one of algorithm {self._algorithm.slug!r}", fix=f"see {job.url}"
            )
        check_room(self._request.output_dir, ())
        waiting = self._waiting(pk, pk, self._request.output_dir)
        return self._wait(deque(), [waiting])

    def start_and_wait(self, cases: list[CaseFolder]) -> list[JobOutcome]:
        """Start a job for every case, some at once, and wait for all."""
        outcomes = {each.name: each for each in self._wait(deque(cases), [])}
        return [outcomes[case.name] for case in cases]

    def _wait(self, todo: deque[CaseFolder], waiting: list[Waiting]) -> list[JobOutcome]:
        pace, ended = self._request.pace, list[JobOutcome]()
        several, pause_s = len(todo) > 1, pace.poll_s
        try:
            while todo or waiting:
                while todo and len(waiting) < pace.at_once:
                    started = self._start(todo.popleft())
                    if isinstance(started, Waiting):
                        waiting.append(started)
                    else:
                        self._end(started, ended, several=several)
                for each in list(waiting):
                    outcome = each.look()
                    if outcome is not None:
                        waiting.remove(each)
                        self._end(outcome, ended, several=several)
                broken = any(each.broken_since is not None for each in waiting)
                pause_s = min(2 * pause_s, pace.slowest_s) if broken else pace.poll_s
                if waiting:
                    time.sleep(pause_s)
        except (KeyboardInterrupt, SystemExit):
            for each in waiting:
                self._listener.error(
                    f"{each.name}: job {each.pk} goes on", f"fetch it later with {each.later}"
                )
            raise
        return ended

    def _end(self, outcome: JobOutcome, ended: list[JobOutcome], *, several: bool) -> None:
        ended.append(outcome)
        if several and outcome.error is not None:
            self._listener.error(f"{outcome.name}: {outcome.error.message}", outcome.error.fix)

    def _start(self, case: CaseFolder) -> Waiting | JobOutcome:
        output_dir = self._request.output_dir
        folder = output_dir / case.name if case.nested else output_dir
        try:
            interface, inputs = read_case(case.folder, self._algorithm.interfaces)
            check_room(folder, interface.outputs)
            size_mib = sum(each.file.stat().st_size for each in inputs) / _MIB
            self._listener.say(f"{case.name}: sending {len(inputs)} inputs, {size_mib:.1f} MiB")
            pk = self._platform.start(self._algorithm, inputs)
        except FlarekitError as error:
            return JobOutcome(name=case.name, job=None, error=error)
        self._listener.say(f"{case.name}: job {pk} is started")
        return self._waiting(case.name, pk, folder)

    def _waiting(self, name: str, pk: str, folder: Path) -> Waiting:
        request = self._request
        words = ["flarekit", "submit", request.algorithm, "--job", pk, "--output", str(folder)]
        if request.url != API_URL:
            words += ["--url", request.url]
        return Waiting(
            name=name,
            pk=pk,
            folder=folder,
            later=f"`{shlex.join(words)}`",
            timeout_s=request.timeout_s,
            began=time.monotonic(),
            platform=self._platform,
            listener=self._listener,
            pace=request.pace,
        )
