"""What `flarekit train compact` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CompactRun:
    """How a compact run is made; see `flarekit.training.compact.RunOptions`."""

    minutes: float | None = None
    start: Path | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """A recipe, the folders that its samples come from, and where they are prepared."""

    recipe_path: Path
    dataset: Path
    run_dir: Path
    material: list[Path] | None = None
    negatives: list[Path] | None = None
    cases: Path | None = None
    processes: int = 2
    trust: bool = False

    @property
    def others(self) -> tuple[Path, ...]:
        """The folders besides the data set."""
        return (*(self.material or ()), *(self.negatives or ()))
