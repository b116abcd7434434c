"""Every error flarekit raises on purpose, with its exit code.

FlarekitError                 1   also: at least one case failed
+-- BudgetError               1   what does not fit into the memory that is allowed
+-- UsageError                2   an option or a name that does not exist
+-- InputError                3   nothing to do, or a file that cannot be read
|   +-- UnreadableVolumeError 3   one volume: which file, what is wrong, what to do
+-- PredictorError            4   a predictor that cannot be trusted
|   +-- WeightsMissingError   4
|   +-- WeightsHashError      4
|   +-- WeightsMismatchError  4
+-- DeviceError               5   a device or a precision that is not there
+-- OutputError               6   a mask that could not be written
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from flarekit.core.unpacked_names import by_archive


class FlarekitError(Exception):
    """An expected failure: one sentence on what happened, one on what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str) -> None:
        self.message, self.fix = by_archive(message), by_archive(fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.fix})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the error picklable, whatever its constructor takes: worker processes raise it."""
        return _revived, (type(self), self.args, self.__dict__)


_MEMORY_WORDS = ("out of memory", "enough memory", "can't allocate", "cannot allocate", "bad_alloc")


def memory_fault(error: BaseException) -> str | None:
    """Return that this machine's memory does not suffice, where that is what an error means."""
    what = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    if isinstance(error, MemoryError) or any(word in what.lower() for word in _MEMORY_WORDS):
        return f"the memory of this machine is not enough: {what}"
    return None


def named(message: str, files: Sequence[Path]) -> str:
    """Return what happened to a case with its first file before it, unless it names a file of it.

    Args:
        message: one sentence.
        files: of the case; none where it came as an array.
    """
    if not files or any(by_archive(str(file)) in message for file in files):
        return message
    return by_archive(f"{files[0]}: {message}")


def _revived(
    kind: type[FlarekitError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> FlarekitError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class BudgetError(FlarekitError):
    """A case does not fit into the memory that is allowed."""


class UsageError(FlarekitError):
    """An option, name or combination that does not exist."""

    exit_code: ClassVar[int] = 2


class InputError(FlarekitError):
    """No cases, or a case that cannot be used."""

    exit_code: ClassVar[int] = 3


class UnreadableVolumeError(InputError):
    """One file that is not a usable volume."""

    def __init__(self, path: Path, fault: str, *, fix: str) -> None:
        super().__init__(f"{path}: {fault}", fix=fix)
        self.path = path
        self.fault = fault


class PredictorError(FlarekitError):
    """A predictor folder that is missing something or contradicts itself."""

    exit_code: ClassVar[int] = 4


class WeightsMissingError(PredictorError):
    """The weights file that `predictor.toml` names is not there."""


class WeightsHashError(PredictorError):
    """The weights file is not the one that `predictor.toml` describes."""


class WeightsMismatchError(PredictorError):
    """The weights do not fit the architecture, tensor by tensor."""


class DeviceError(FlarekitError):
    """The device or the precision asked for is not available here."""

    exit_code: ClassVar[int] = 5


class OutputError(FlarekitError):
    """A result could not be written."""

    exit_code: ClassVar[int] = 6
