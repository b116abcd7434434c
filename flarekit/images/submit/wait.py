"""Waiting for a job of grand-challenge.org through broken connections; fetching its outputs."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flarekit.core.errors import FlarekitError
from flarekit.images.submit.errors import PlatformError, UnreachableError
from flarekit.images.submit.platform import CANCELLED, FAILED, SUCCEEDED, Job, Platform


class JobFailedError(PlatformError):
    """A job ended without outputs."""


class Listener(Protocol):
    """Who wants to know how the jobs are doing."""

    def say(self, line: str) -> None:
        """Something happened."""
        ...

    def error(self, message: str, fix: str | None) -> None:
        """A case went wrong; the others go on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the platform is asked, and for how long it may be silent.

    Attributes:
        poll_s: between two looks at the jobs.
        slowest_s: the longest time between two looks, where every look that failed doubles it.
        patience_s: that the connection may be broken before the wait is given up.
        heartbeat_s: after which a status that has not changed is said again.
        retry_s: the first pause of gcapi's own retries; they double, eight times.
        at_once: jobs side by side; the platform allows 16 per user.
    """

    poll_s: float = 15.0
    slowest_s: float = 120.0
    patience_s: float = 900.0
    heartbeat_s: float = 300.0
    retry_s: float = 0.1
    at_once: int = 8


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """What became of a case.

    Attributes:
        name: of its folder, or of the job.
        job: its identifier; None where none was started.
        files: that were fetched.
        error: why it has not all its outputs; None where it has.
    """

    name: str
    job: str | None
    files: tuple[Path, ...] = ()
    error: FlarekitError | None = None


@dataclass(kw_only=True)
class Waiting:
    """A job that is waited for.

    Attributes:
        name: of its case.
        pk: its identifier.
        folder: for its outputs.
        later: the command that fetches it another time.
        timeout_s: that it may take from `began`.
        began: when the wait began, of `time.monotonic`.
        status: as last heard.
        said: when it was last said.
        broken_since: when the connection broke; None where it has not.
        fetched: files by socket.
    """

    name: str
    pk: str
    folder: Path
    later: str
    timeout_s: float
    began: float
    platform: Platform
    listener: Listener
    pace: Pace
    status: str = ""
    said: float = 0.0
    broken_since: float | None = None
    fetched: dict[str, list[Path]] = field(default_factory=dict)

    def look(self) -> JobOutcome | None:
        """Return what became of the job; None while it, or a broken connection, goes on."""
        try:
            job = self.platform.job(self.pk)
            self._say_status(job.status)
            if job.status in (FAILED, CANCELLED):
                raise _failure(job)
            if job.status == SUCCEEDED:
                self._fetch(job)
        except UnreachableError as error:
            return self._broken(error)
        except JobFailedError as error:
            return self._ended(error)
        except FlarekitError as error:
            error.fix = f"{error.fix}; fetch the job later with {self.later}"
            return self._ended(error)
        self.broken_since = None
        return self._ended(None) if job.status == SUCCEEDED else self._late()

    def _say_status(self, status: str) -> None:
        now = time.monotonic()
        if status != self.status:
            self.listener.say(f"{self.name}: {status}")
        elif now - self.said >= self.pace.heartbeat_s:
            self.listener.say(f"{self.name}: {status}, for {(now - self.began) / 60:.0f} min now")
        else:
            return
        self.status, self.said = status, now

    def _fetch(self, job: Job) -> None:
        """Fetch the outputs that are not here yet, all that can be had.

        Raises:
            PlatformError: one cannot be had, or there are none.
            UnreachableError: the connection broke.
            OutputError: one cannot be written.
        """
        if not job.outputs:
            raise PlatformError(f"job {self.pk} shows no outputs", fix=f"see {job.url}")
        faults = []
        for output in job.outputs:
            if output.socket.slug in self.fetched:
                continue
            try:
                self.fetched[output.socket.slug] = self.platform.fetch(output, self.folder)
            except UnreachableError:
                raise
            except PlatformError as error:
                faults.append(error.message)
        if faults:
            raise PlatformError(f"job {self.pk}: {'; '.join(faults)}", fix=f"see {job.url}")

    def _broken(self, error: UnreachableError) -> JobOutcome | None:
        now = time.monotonic()
        if self.broken_since is None:
            self.broken_since = now
            self.listener.say(f"{self.name}: {error.message}; trying again")
        if now - self.broken_since < self.pace.patience_s:
            return self._late()
        minutes = (now - self.broken_since) / 60
        return self._ended(
            UnreachableError(
                f"{error.message}, for {minutes:.0f} min; job {self.pk} goes on",
                fix=f"fetch it later with {self.later}",
            )
        )

    def _late(self) -> JobOutcome | None:
        if time.monotonic() - self.began < self.timeout_s:
            return None
        return self._ended(
            PlatformError(
                f"job {self.pk} is not over after {self.timeout_s / 60:g} min "
                f"({self.status or 'status unknown'}); it goes on",
                fix=f"fetch it later with {self.later}",
            )
        )

    def _ended(self, error: FlarekitError | None) -> JobOutcome:
        files = tuple(path for paths in self.fetched.values() for path in paths)
        if error is None:
            self.listener.say(f"{self.name}: {len(files)} files fetched into {self.folder}")
        return JobOutcome(name=self.name, job=self.pk, files=files, error=error)


def _failure(job: Job) -> JobFailedError:
    if job.reason:
        return JobFailedError(
            f"job {job.pk} {job.status.lower()}: {job.reason}", fix=f"its log is at {job.url}"
        )
    if job.status == CANCELLED:
        return JobFailedError(
            f"job {job.pk} was cancelled, by hand or because an input is not what its socket takes",
            fix=f"the reason is given at {job.url}",
        )
    return JobFailedError(
        f"job {job.pk} failed; the platform shows why, and what was last written to stderr, on "
        f"its page only",
        fix=f"see {job.url}",
    )
