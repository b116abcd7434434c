"""pydicom and highdicom say nothing and check nothing, in several threads at a time."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_TURN = threading.Lock()
_INSIDE = 0  # threads
_SETTINGS = ExitStack()  # to be put back when the last of them leaves


@contextmanager
def unchecked() -> Iterator[None]:
    """Let values be read and written as the images have them, without a warning.

    Python's filters of warnings and pydicom's settings belong to the whole process: the first
    thread that comes in changes them and the last one that leaves puts them back. A case may be
    read while the one before is written.
    """
    global _INSIDE  # noqa: PLW0603 - as the settings are
    with _TURN:
        if not _INSIDE:
            _change(_SETTINGS)
        _INSIDE += 1
    try:
        yield
    finally:
        with _TURN:
            _INSIDE -= 1
            if not _INSIDE:
                _SETTINGS.close()


def _change(settings: ExitStack) -> None:
    from pydicom.config import disable_value_validation

    settings.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module="pydicom|highdicom")
    settings.enter_context(disable_value_validation())
