"""What to type where an optional package is missing; flarekit itself is on no package index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires

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
