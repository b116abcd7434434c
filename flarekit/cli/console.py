"""What a run says: progress bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from flarekit.core.files import printable
from flarekit.core.records import CaseRecord


def typed(*words: object) -> str:
    """Return a command as it is typed: `flarekit`, and words that a shell takes for one each."""
    return shlex.join(["flarekit", *map(str, words)])


def _columns() -> tuple[ProgressColumn, ...]:
    text = TextColumn("{task.description}")
    return text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()


class _Printable(logging.Formatter):
    """Names of files and texts of headers cannot write to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Console:
    """Progress and messages of one run, on stderr; stdout is left to results.

    Args:
        verbose: also debug messages, with tracebacks.
        quiet: errors only.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False) -> None:
        self._quiet = quiet
        self._total: int | None = None
        self._before, self._ended = 0, 0
        self._rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bars = self._progress_bars() if self._rich.is_terminal and not quiet else None
        self._start_logging(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)

    def _progress_bars(self) -> Progress:
        bars = Progress(*_columns(), console=self._rich, transient=True)
        self._case_bar = bars.add_task("cases", total=None)
        self._tile_bar = bars.add_task("tiles", total=None, visible=False)
        return bars

    def _start_logging(self, level: int) -> None:
        handler: logging.Handler
        if self._bars is not None:
            handler = RichHandler(console=self._rich, show_time=False, show_path=False)
            handler.setFormatter(_Printable("%(message)s"))
        else:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
        logger = logging.getLogger("flarekit")
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False

    def __enter__(self) -> Console:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar while something is counted; nothing where nobody looks.

        Args:
            what: is counted, in the plural.

        Yields:
            What takes how many are done, of how many.
        """
        if self._quiet or not self._rich.is_terminal:
            yield lambda _done, _total: None
            return
        with Progress(*_columns(), console=self._rich, transient=True) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    @contextmanager
    def spinner(self, what: str) -> Iterator[None]:
        """Show that something is going on, and for how long; nothing where nobody looks.

        Args:
            what: is going on, in a few words.
        """
        if self._quiet or not self._rich.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._rich, transient=True) as bars:
            bars.add_task(what, total=None)
            yield

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self.insist(line)

    def insist(self, line: str) -> None:
        """Print one line, even where quiet was asked for."""
        self._rich.print(printable(line), markup=False)

    def error(self, message: str, fix: str | None) -> None:
        """Print an error and what to do about it, in one line."""
        self.insist(f"error: {message}" + (f"; {fix}" if fix else ""))

    def position(self) -> str:
        """Return how many cases are done, those of earlier runs included."""
        if self._total is None:
            return "no case has begun"
        return f"{self._before + self._ended} of {self._total} done"

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Show that a case begins."""
        if self._total is None:
            self._total, self._before = total, index
        if self._bars is None:
            self.say(f"[{index + 1}/{total}] {case_id}")
            return
        self._bars.update(
            self._case_bar, total=total, completed=index, description=f"case {case_id}"
        )
        self._bars.reset(self._tile_bar, visible=False)

    def tiles(self, done: int, total: int) -> None:
        """Show how many tiles of the case are done."""
        if self._bars is not None:
            self._bars.update(self._tile_bar, completed=done, total=total, visible=True)

    def end_case(self, record: CaseRecord) -> None:
        """Say what became of a case."""
        self._ended += 1
        if self._bars is not None:
            self._bars.advance(self._case_bar)
        if record.error is not None:
            left = f"a stand-in is at {record.mask}" if record.mask else "no mask was written"
            self.error(f"case {record.case_id}: {record.error}", f"{record.fix}; {left}")
            return
        steps = [*record.start.items(), *record.seconds.items()]
        listed = ", ".join(f"{name} {value:.1f} s" for name, value in steps)
        self.say(f"{record.case_id}: {record.wall_s:.1f} s ({listed})")
        volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in record.volumes_ml.items())
        self.say(f"{record.case_id}: {volumes}")
        if record.flags:
            self.say(f"{record.case_id}: look at this mask: {'; '.join(map(str, record.flags))}")
