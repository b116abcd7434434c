"""A service for a test; without the extra `serve` there is nothing to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flarekit.service.settings import Settings
    from tests.service.serving import Running

if find_spec("fastapi") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Return what makes settings whose data lie in this test's folder."""
    from tests.service.serving import settings_in

    return lambda **changes: settings_in(tmp_path, **changes)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Return a service that runs with what is usual."""
    from tests.service.serving import serving, settings_in

    with serving(settings_in(tmp_path)) as found:
        yield found


@pytest.fixture
def serve() -> Any:
    """Return what serves with settings of one's own."""
    from tests.service.serving import serving

    return serving


@pytest.fixture(scope="session")
def nifti() -> bytes:
    """Return a small CT as a file's bytes, with one bright voxel."""
    from tests.service.serving import nifti_of

    return nifti_of()
