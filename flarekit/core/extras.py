"""Optional packages: whether they are here, and what to type where not.

flarekit itself is on no package index.
"""

import logging
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from flarekit.core.errors import UsageError

_LOG = logging.getLogger(__name__)
_OWN = "flarekit"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def how_to_install(extra: str) -> str:
    """Return what brings the packages of an extra, wherever flarekit was installed from.

    Args:
        extra: its name in pyproject.toml.
    """
    checkout = f'pip install ".[{extra}]"'
    packages = sorted({f'"{package}"' for package in _packages(extra)})
    if not packages:
        return f"{checkout} in a checkout of flarekit"
    return f"pip install {' '.join(packages)}; or {checkout} in a checkout of flarekit"


def require(module: str, extra: str, fault: str | None = None) -> None:
    """Refuse to go on without an optional package.

    Args:
        module: as it is imported.
        extra: that brings it.
        fault: what is said where it is missing; that it is not installed where None.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec(module) is None:
        raise UsageError(fault or f"{module} is not installed", fix=how_to_install(extra))


def can_draw(lacking: str) -> bool:
    """Return whether matplotlib is here; where it is not, warn of what is lacking for that."""
    if find_spec("matplotlib") is not None:
        return True
    _LOG.warning("%s: matplotlib is not installed (%s)", lacking, how_to_install("picture"))
    return False


def _packages(extra: str) -> Iterator[str]:
    try:
        stated = requires(_OWN) or []
    except PackageNotFoundError:  # run from a folder, not installed
        stated = []
    for requirement in stated:
        package, _, marker = requirement.partition(";")
        if extra not in _EXTRA.findall(marker):
            continue
        inner = re.fullmatch(rf"{_OWN}\[([^\]]+)\]\s*", package)
        if inner is None:
            yield package.strip()
        else:
            for each in inner[1].split(","):
                yield from _packages(each.strip())
