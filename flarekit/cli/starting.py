"""What makes a command of this process start sooner."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LOADING = ("importlib", "_frozen_importlib")


class _NibabelAlone(MetaPathFinder):
    """Tells nibabel that there is no pydicom, whoever else finds it.

    nibabel imports it, with all that it brings, to name the DICOM tags that some NIfTI files carry
    behind their headers, which nothing here asks for; such files are read as before. The import
    takes longer than that of nibabel itself.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - what a finder is asked
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Refuse pydicom to nibabel; everything else is left to the other finders."""
        if fullname == "pydicom" and _importer() == "nibabel.optpkg":
            raise ModuleNotFoundError("pydicom is not imported for nibabel", name=fullname)
        return None


def _importer() -> str:
    """Return the name of the module that an import stands in."""
    frame = sys._getframe(2)  # noqa: SLF001 - the only way to know
    while frame.f_back is not None and _module(frame.f_globals).startswith(_LOADING):
        frame = frame.f_back
    return _module(frame.f_globals)


def _module(names: dict[str, object]) -> str:
    return str(names.get("__name__", ""))


def spare_pydicom() -> None:
    """Keep nibabel from importing pydicom in this process, which has to be the command's own."""
    sys.meta_path.insert(0, _NibabelAlone())
