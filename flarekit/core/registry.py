"""Entries by name: a module, or a folder with a module, is known by the name of its file.

Names are told without importing anything, so that help texts and messages cost nothing.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Registry:
    """The entries of an imported package; names that begin with `_` are none.

    Attributes:
        package: its dotted name.
        part: the module that each entry's folder has; empty where entries are single modules.
    """

    package: str
    part: str = ""

    def names(self) -> tuple[str, ...]:
        """Return the names of all entries, sorted."""
        return tuple(sorted(name for name in self._found() if not name.startswith("_")))

    def load(self, name: str) -> ModuleType:
        """Import an entry, one of `names()`."""
        return import_module(self.module(name))

    def module(self, name: str) -> str:
        """Return the dotted name of an entry's module."""
        return ".".join(filter(None, (self.package, name, self.part)))

    def _found(self) -> Iterable[str]:
        pattern = f"*/{self.part}.py" if self.part else "*.py"
        for place in sys.modules[self.package].__path__:
            for path in Path(place).glob(pattern):
                yield path.parent.name if self.part else path.stem


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return what to tell somebody who has named what does not exist: the nearest, or all names."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
