"""Networks that are not in this folder: classes of one's own, and files that hold a network.

An installed package may name architectures in the entry point group `flarekit.architectures`; they
are known as those of this folder are. `module:Class` names a class of any module. What that runs is
code that a predictor folder chooses, so that it takes somebody's trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import PredictorError

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "flarekit.architectures"


class UntrustedError(PredictorError):
    """A predictor folder that would execute code of its own choice."""


@cache
def installed() -> dict[str, EntryPoint]:
    """Return the architectures that installed packages name, by name."""
    return {each.name: each for each in entry_points(group=ENTRY_POINTS)}


def create_installed(name: str) -> Callable[..., nn.Module]:
    """Return what an installed package's architecture is made by.

    Raises:
        PredictorError: the package cannot be imported.
    """
    entry = installed()[name]
    try:
        made: Callable[..., nn.Module] = entry.load()
    except Exception as error:  # whatever the package does when it is imported
        raise PredictorError(
            f"the architecture {name!r} of {entry.value} cannot be imported: "
            f"{type(error).__name__}: {error}",
            fix="repair or remove the package that names it",
        ) from error
    return made


@dataclass(frozen=True, kw_only=True)
class OwnClass:
    """A class of one's own, as `module:Class` names it.

    Attributes:
        module: dotted name.
        attribute: what in it makes the network, a class or a function.
        file: that holds the module, beside the predictor's facts; None where it is to be imported
            from wherever Python finds it.
    """

    module: str
    attribute: str
    file: Path | None

    @classmethod
    def of(cls, name: str, folder: Path | None) -> OwnClass | None:
        """Return the class that an architecture's name means; None for one of the package's own.

        Args:
            name: of the architecture.
            folder: with the predictor's facts; a module that lies in it goes first.
        """
        if ":" not in name:
            return None
        module, _, attribute = name.partition(":")
        file = None if folder is None else folder / f"{module}.py"
        return cls(
            module=module,
            attribute=attribute,
            file=file if file is not None and "." not in module and file.is_file() else None,
        )

    def told(self) -> str:
        """Return what would be executed, in words."""
        if self.file is None:
            return f"import the module {self.module}, wherever Python finds it"
        return f"execute {self.file} (SHA-256 {self.sha256()[:16]}...)"

    def sha256(self) -> str:
        """Return the SHA-256 of the module's source; it is imported where it is not a file here."""
        source = self.file
        if source is None:
            found = getattr(self._imported(), "__file__", None)
            source = Path(found) if found else None
        content = source.read_bytes() if source is not None and source.is_file() else b""
        return hashlib.sha256(content).hexdigest()

    def load(self) -> Callable[..., nn.Module]:
        """Import the module and return the class.

        Raises:
            PredictorError: it cannot be imported, or has nothing of that name.
        """
        made: Any = self._imported()
        for part in self.attribute.split("."):
            made = getattr(made, part, None)
        if not callable(made):
            where = self.file or f"the module {self.module}"
            raise PredictorError(
                f"{where}: has no class {self.attribute}",
                fix="correct the name in [architecture], MODULE:CLASS",
            )
        found: Callable[..., nn.Module] = made
        return found

    def _imported(self) -> ModuleType:
        try:
            return (
                importlib.import_module(self.module) if self.file is None else _of_file(self.file)
            )
        except Exception as error:  # whatever the module does when it is imported
            where = self.file or f"the module {self.module}"
            raise PredictorError(
                f"{where}: cannot be imported: {type(error).__name__}: {error}",
                fix="put MODULE.py beside predictor.toml, or install the package that has it; a "
                "module beside predictor.toml imports installed packages only",
            ) from error


def _of_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that two folders may each have a `nets.py`."""
    content = path.read_bytes()
    name = (
        f"_flarekit_own_{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    )
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 - what trust is for
    except BaseException:  # an interruption as well: what is half imported is forgotten
        del sys.modules[name]
        raise
    return module
