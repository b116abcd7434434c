"""The course of a training: a table that survives a kill, and its picture."""

from __future__ import annotations

import csv
import io
import logging
import math
from dataclasses import astuple, dataclass
from pathlib import Path

from flarekit.core.extras import can_draw
from flarekit.core.files import write_atomically

_LOG = logging.getLogger(__name__)
_COLUMNS = ("step", "minutes", "loss", "learning_rate", "validation_dice")


@dataclass
class Row:
    """A point of the curve; the Dice is there where it was measured."""

    step: int
    minutes: float
    loss: float
    rate: float
    dice: float | None = None


class Curve:
    """Mean losses between two points and validation Dice: `curve.csv`, drawn as `curve.png`."""

    def __init__(self, run_dir: Path, rows: list[Row]) -> None:
        self._csv, self._png = run_dir / "curve.csv", run_dir / "curve.png"
        self._rows = rows
        self._losses: list[float] = []
        self._draws = True  # until it turns out that nothing here can

    @classmethod
    def resumed(cls, run_dir: Path, step: int) -> Curve:
        """Read the curve of a run up to a step; what came after it is trained again."""
        path = run_dir / "curve.csv"
        rows: list[Row] = []
        if path.exists():
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
                if int(row["step"]) <= step:
                    minutes, loss, rate = (float(row[name]) for name in _COLUMNS[1:4])
                    dice = row.get(_COLUMNS[4])
                    rows.append(
                        Row(int(row["step"]), minutes, loss, rate, float(dice) if dice else None)
                    )
        return cls(run_dir, rows)

    @property
    def dice(self) -> list[float]:
        """The validation Dice that were measured, in the order of time."""
        return [row.dice for row in self._rows if row.dice is not None]

    def add(self, loss: float) -> None:
        """Take in the loss of a step; one that is not finite is left out of the means."""
        if math.isfinite(loss):
            self._losses.append(loss)

    def record(self, step: int, seconds: float, rate: float) -> None:
        """Write a point: the mean loss since the last one."""
        if not self._losses:
            return
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        self._rows.append(Row(step, round(seconds / 60, 3), round(mean, 5), rate))
        self._write()
        _LOG.debug("step %d, %.1f min, loss %.3f", step, seconds / 60, mean)

    def validate(self, dice: float) -> None:
        """Write the mean validation Dice beside the last point."""
        if self._rows and math.isfinite(dice):
            self._rows[-1].dice = round(dice, 4)
            self._write()

    def _write(self) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(astuple(row) for row in self._rows)
        write_atomically(self._csv, stream.getvalue().encode())

    def draw(self) -> None:
        """Draw the picture; without matplotlib say once that there is none."""
        self._draws = self._draws and can_draw("no curve.png")
        if not self._draws:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        measured = [(row.minutes, row.dice) for row in self._rows if row.dice is not None]
        minutes = [row.minutes for row in self._rows]
        figure = Figure(figsize=(7, 6 if measured else 4), layout="constrained")
        FigureCanvasAgg(figure)
        losses = figure.add_subplot(2 if measured else 1, 1, 1)
        losses.plot(minutes, [row.loss for row in self._rows], color="0.75", linewidth=1)
        losses.plot(minutes, _smoothed([row.loss for row in self._rows]), color="C0")
        losses.set(xlabel="minutes", ylabel="loss")
        rates = losses.twinx()
        rates.plot(minutes, [row.rate for row in self._rows], color="C1", linewidth=1)
        rates.set_ylabel("learning rate", color="C1")
        if measured:
            dice = figure.add_subplot(2, 1, 2, sharex=losses)
            dice.plot(*zip(*measured, strict=True), "C2o-")
            dice.set(xlabel="minutes", ylabel="validation Dice", ylim=(0, 1))
            dice.grid(color="0.9")
        stream = io.BytesIO()
        figure.savefig(stream, dpi=100)
        write_atomically(self._png, stream.getvalue())


def _smoothed(losses: list[float]) -> list[float]:
    """Return a running mean that weighs the past more, the longer there is one."""
    smooth: list[float] = []
    for index, loss in enumerate(losses):
        keep = min(0.95, index / (index + 5))
        smooth.append(keep * smooth[-1] + (1 - keep) * loss if smooth else loss)
    return smooth
