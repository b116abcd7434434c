from __future__ import annotations

import threading
import warnings

import pydicom.config
import pytest

from flarekit.conventions.dicom.unchecked import unchecked


def warn_as_pydicom():
    warnings.warn_explicit("odd value", UserWarning, "values.py", 1, module="pydicom.values")


def state():
    settings = pydicom.config.settings
    return (
        list(warnings.filters),
        settings.reading_validation_mode,
        settings.writing_validation_mode,
    )


def test_a_thread_that_leaves_takes_nothing_from_one_that_is_still_inside():
    before, inside, leave = state(), threading.Event(), threading.Event()

    def first():
        with unchecked():
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with unchecked():
        within = state()
        leave.set()
        thread.join()
        assert state() == within
        warn_as_pydicom()
    assert state() == before


def test_outside_warnings_and_checks_are_as_they_were():
    before = state()

    def fail():
        with unchecked():
            assert state() != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state() == before
    with pytest.raises(UserWarning, match="odd value"):
        warn_as_pydicom()
