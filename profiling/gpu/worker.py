"""One step in a process of its own: `worker.py MODULE SETTINGS RESULT [ARGUMENT...]`.

The module's `run(settings, record, *arguments)` fills the record; each change is on disk at once.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from gpu.supervise import Settings


class Record:
    """What a step has to tell, on disk whenever something is added.

    Args:
        path: JSON file.
    """

    def __init__(self, path: Path) -> None:
        self.content: dict[str, Any] = {}
        self._path = path

    def add(self, **values: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
        """Set values."""
        self.content |= values
        self.write()

    def append(self, name: str, row: Any) -> None:  # noqa: ANN401
        """Append a row to a list."""
        self.content.setdefault(name, []).append(row)
        self.write()

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Note what goes wrong inside and go on: one part's fault is not another's."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is what the check is there to find
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"[:1500]
            self.content.setdefault("errors", {})[name] = message
            self.write()

    def write(self) -> None:
        """Write everything, whole or not at all."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self.content, default=str))
        draft.replace(self._path)


def main(module: str, settings: Path, result: Path, *arguments: str) -> None:
    told = json.loads(settings.read_text())
    for name in ("predictors", "untrained"):
        told[name] = tuple(told[name])
    import_module(f"gpu.{module}").run(Settings(**told), Record(result), *arguments)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
