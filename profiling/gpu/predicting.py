"""How the steps drive the package: the only place that knows its command line and its functions."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.supervise import Settings

if TYPE_CHECKING:
    from flarekit.core.spec import PredictorFolder

PROGRAM = (sys.executable, "-m", "flarekit.cli.main")
RECORD, LEDGER = "run.json", "ledger.jsonl"  # what a run tells of itself, in --report's folder


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A folder segmented in this process.

    Attributes:
        exit_code: the command's.
        seconds: around the whole of it.
        masks: its output folder.
        record: what the run told of itself, as in its report.
    """

    exit_code: int
    seconds: float
    masks: Path
    record: dict[str, Any] = field(default_factory=dict)

    def note(self) -> dict[str, Any]:
        """Return what is worth keeping of it."""
        kept = ("engine", "device", "precision", "scan", "seconds", "wall_s", "cases")
        told = {name: self.record[name] for name in kept if name in self.record}
        return {"exit_code": self.exit_code, "around_s": round(self.seconds, 3), "told": told}


def find(name: str) -> PredictorFolder:
    """Return a predictor's facts."""
    from flarekit.segmentation.predictors import find_predictor

    return find_predictor(name)


def arguments(
    settings: Settings,
    predictor: str,
    inputs: Path,
    outputs: Path,
    report: Path,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the arguments that segment a folder: torch computes, on the device of the check."""
    folders = ["--input", str(inputs), "--output", str(outputs), "--report", str(report)]
    engine = ["--engine", "torch", "--device", settings.device, "--no-pictures"]
    # the organisers' budget is a GPU's: a slow CPU would give up the masks for it
    tolerated = ["--time-budget", "convention", "--gpu-memory-budget", "convention"]
    budget = tolerated if settings.device == "cuda" else ["--time-budget", "0"]
    return ["predict", "--predictor", predictor, *folders, *engine, *budget, *extra]


def predict_here(
    settings: Settings, predictor: str, inputs: Path, extra: Sequence[str] = ()
) -> Prediction:
    """Segment a folder in this process, with no time budget: that counts from a process's start."""
    from flarekit.cli.main import app

    place = Path(tempfile.mkdtemp(dir=settings.work))
    outputs, report = place / "masks", place / "report"
    line = arguments(settings, predictor, inputs, outputs, report, ["--time-budget", "0", *extra])
    began = time.perf_counter()
    code = app(line, standalone_mode=False)
    seconds = time.perf_counter() - began
    return Prediction(
        exit_code=int(code or 0), seconds=seconds, masks=outputs, record=read_record(report)
    )


def read_record(report: Path) -> dict[str, Any]:
    """Return what a run told of itself and its cases; nothing where it told nothing."""
    from flarekit.profiler.step_times import read_step_times

    path = report / RECORD
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content | {"cases": [asdict(case) for case in read_step_times(path).cases]}


def masks_of(folder: Path) -> dict[str, Any]:
    """Return all masks below a folder: name -> voxels (Z, Y, X)."""
    from flarekit.core.metaimage import read_metaimage
    from flarekit.core.nifti import read_nifti

    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(".nii.gz"):
            found[path.name] = read_nifti(path).voxels_ZYX
        elif path.suffix == ".mha":
            found[path.name] = read_metaimage(path, air=0).voxels_ZYX
    return found


def agreement(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the share of equal voxels and the Dice of every label of two runs' masks."""
    import numpy as np

    equal, total, labels = 0, 0, set[int]()
    for name, mask in first.items():
        equal += int((mask == second[name]).sum())
        total += mask.size
        labels |= set(np.unique(mask).tolist()) | set(np.unique(second[name]).tolist())
    dice = {}
    for label in sorted(labels - {0}):
        pairs = [(mask == label, second[name] == label) for name, mask in first.items()]
        both = sum(int((a & b).sum()) for a, b in pairs)
        either = sum(int(a.sum()) + int(b.sum()) for a, b in pairs)
        dice[str(label)] = round(2 * both / either, 6)
    return {
        "voxels": total,
        "equal": round(equal / max(1, total), 7),
        "dice": dice,
        "least_dice": min(dice.values(), default=None),
    }


class FirstTile:
    """Catches the network that a run uses, and the liveliest of the tiles that it is given."""

    def __init__(self) -> None:
        self.network: Any = None
        self.tile: Any = None
        self._spread = -1.0

    def __enter__(self) -> FirstTile:
        from torch.nn.modules.module import register_module_forward_pre_hook

        self._hook = register_module_forward_pre_hook(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _see(self, module: Any, inputs: tuple[Any, ...]) -> None:  # noqa: ANN401
        if self.network is None:
            self.network = module
        if module is not self.network:
            return
        spread = float(inputs[0].float().std())
        if spread > self._spread:
            self._spread, self.tile = spread, inputs[0].detach().clone()
