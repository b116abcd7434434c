"""A scan that stays open: clicks correct its labels without the network running again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UsageError
from flarekit.core.spec import PredictorSpec
from flarekit.segmentation.labelling import Probabilities
from flarekit.segmentation.result import Result
from flarekit.segmentation.scan_rules import apply_scan_rules, only_wanted
from flarekit.segmentation.scans import ScanInput
from flarekit.segmentation.segmented import Segmented

Clicks = Mapping[str, Sequence[Sequence[int]]]
_NAMES = ("tumor", "background")
_RULE = "clicks"


class OpenScan:
    """One scan, its labels, and the logits they came from; made by `Segmenter.open`.

    Each correction begins with what the network said, not with the correction before it.

    Attributes:
        result: without any click.
    """

    def __init__(
        self, done: Segmented, source: ScanInput, spec: PredictorSpec, seconds: float
    ) -> None:
        """Keep a case that was segmented; `Segmenter.open` does it."""
        self._done: Segmented | None = replace(done, clock=done.clock)
        self._source, self._spec = source, spec
        self.result = Result.of(done, source, spec, seconds)

    def __enter__(self) -> Self:
        """Return the scan itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Release the scan and its logits; `result` and what `refine` returned stay as they are."""
        self._done = None

    def refine(self, clicks: Clicks) -> Result:
        """Correct the labels by clicks: the rules run again, the network does not.

        Args:
            clicks: `tumor` and `background` -> indices of voxels, each in the order of the labels'
                axes, so that `result.labels[click]` is what was clicked on.

        Returns:
            The corrected labels; without any click those of `result`.

        Raises:
            UsageError: the scan is closed, the predictor has no rule `clicks`, or a click is no
                voxel of the scan.
        """
        began = time.monotonic()
        done = self._open()
        if _RULE not in [rule.name for rule in self._spec.rules] or done.scan is None:
            raise UsageError(
                f"{self._spec.name} has no rule that clicks change",
                fix="choose a predictor with the rule clicks, or add it to predictor.toml",
            )
        assert done.before_scan_rules is not None
        scan = replace(done.scan, points=self._points(clicks, done.label_map_ZYX.shape))
        label_map = apply_scan_rules(
            done.before_scan_rules, self._spec, voxel_ml=done.voxel_ml, scan=scan
        )
        corrected = replace(done, label_map_ZYX=only_wanted(label_map, self._spec))
        return Result.of(corrected, self._source, self._spec, time.monotonic() - began)

    def probabilities(self) -> NDArray[np.float32]:
        """Return the probabilities of every class, as `Result.probabilities` has them.

        Raises:
            UsageError: the scan is closed.
        """
        done = self._open()
        assert done.logits_KZYX is not None
        probable = Probabilities(done.placement, self._spec)
        probable.add(done.logits_KZYX)
        found = probable.finish()
        return found.transpose(0, 3, 2, 1) if self._source.axes == "xyz" else found

    def _open(self) -> Segmented:
        if self._done is None:
            raise UsageError("this scan is closed", fix="open it again with the segmenter")
        return self._done

    def _points(self, clicks: Clicks, shape_ZYX: tuple[int, ...]) -> dict[str, NDArray[np.int64]]:
        unknown = sorted(set(clicks) - set(_NAMES))
        if unknown:
            raise UsageError(
                f"clicks are named {' or '.join(_NAMES)}, not {', '.join(unknown)}",
                fix='give {"tumor": [(...)], "background": [(...)]}',
            )
        points = {}
        for name, places in clicks.items():
            given = np.array(places)
            if not len(given):
                continue
            if given.ndim != 2 or given.shape[1] != 3 or given.dtype.kind not in "iu":
                raise UsageError(
                    f"the {name} clicks are not voxels: {places!r}",
                    fix="give three whole numbers each, in the order of the labels' axes",
                )
            found = given[:, ::-1] if self._source.axes == "xyz" else given
            if (found < 0).any() or (found >= np.array(shape_ZYX)).any():
                raise UsageError(
                    f"a {name} click lies outside the scan: {places!r}",
                    fix=f"the labels have shape {self.result.labels.shape}",
                )
            points[name] = found.astype(np.int64)
        return points
