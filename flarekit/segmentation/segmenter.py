"""A predictor that is loaded once and segments many scans."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from flarekit.core.budget import Budget
from flarekit.core.errors import FlarekitError, UsageError, named
from flarekit.engine import EngineFacts, TileProgress
from flarekit.segmentation.case import compute_case, place_case
from flarekit.segmentation.context import CaseExtras, Compute, RunContext, unheard
from flarekit.segmentation.loaded import load_case
from flarekit.segmentation.locator import looks_everywhere
from flarekit.segmentation.memory import Memory
from flarekit.segmentation.opened import OpenScan
from flarekit.segmentation.options import Options, effective_budget, facts_to_run
from flarekit.segmentation.result import Result
from flarekit.segmentation.scans import Scan, ScanInput, scan_input
from flarekit.segmentation.segmented import Segmented
from flarekit.segmentation.source import Source
from flarekit.segmentation.starting import Start

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Segmenter:
    """A network with its weights, ready to segment scans; made by `flarekit.load`.

    It may be called from several threads. Calls run side by side: reading, resampling and deciding
    labels use as many cores as there are calls, the network's tiles take turns on the device.
    Where a memory budget is given, calls wait for each other, so that it holds for all of them.

    `close` gives the network's memory back; `reopen`, or another `with`, loads it again. Nothing of
    a scan is kept once its result is gone.

    >>> import numpy as np
    >>> import flarekit
    >>> with flarekit.load("abdomen_ct") as segmenter:
    ...     result = segmenter.segment(np.zeros((16, 64, 64), np.int16), spacing_mm=(5, 2, 2))
    >>> result.labels.shape
    (16, 64, 64)
    """

    def __init__(self, source: Source, options: Options | None = None) -> None:
        """Remember what to load; nothing is loaded before it is needed, or `start` is called.

        Args:
            source: the network.
            options: how to run.
        """
        self._source = source
        self.options = options or Options()
        self.spec = facts_to_run(source.spec, self.options)
        self._budget_of = self.options.convention or source.spec.convention
        self.budget: Budget = effective_budget(self._budget_of, self.options)
        self.seconds: dict[str, float] = {}
        self._memory = Memory(budget_mib=self.budget.ram_mib)
        self._compute: Compute | None = None
        self._closed = False
        self._starting = threading.Lock()
        self._turns = threading.Lock()

    @property
    def facts(self) -> EngineFacts:
        """What computes: engine, device and precision as they were chosen, never `auto`.

        >>> import flarekit
        >>> segmenter = flarekit.load("abdomen_ct", device="cpu", precision="fp32")
        >>> segmenter.facts.device, segmenter.facts.precision
        ('cpu', 'fp32')
        """
        return self.start().engine.facts

    @property
    def predictor_sha256(self) -> str | None:
        """Hash that identifies the networks and their facts; None for a module in memory."""
        return self._source.sha256

    @property
    def label_names(self) -> dict[int, str]:
        """Value in the labels -> its name.

        >>> import flarekit
        >>> flarekit.load("mpu_net_liver").label_names
        {1: 'liver'}
        """
        return {value: name for name, value in self.spec.mask_labels.items()}

    def start(self, deadline: float | None = None) -> Compute:
        """Load the network where that has not been done, and return what computes.

        Args:
            deadline: of `time.monotonic`, for the first mask, where it is known: without time for a
                tile before it, a compiled network is loaded when it first runs.

        Raises:
            UsageError: the segmenter is closed.
            PredictorError: weights missing, wrong or not fitting.
            DeviceError: the device or the precision is not available.
        """
        with self._starting:
            if self._closed:
                raise UsageError(
                    "this segmenter is closed", fix="call reopen(), or use it in a with statement"
                )
            if self._compute is None:
                began = time.perf_counter()
                self._compute = self._starting_point().compute(deadline)
                spent_s, compiling_s = time.perf_counter() - began, self._compute.one_time_s
                self.seconds = {"load": max(0.0, spent_s - compiling_s)}
                if compiling_s:
                    self.seconds["compile"] = compiling_s
            return self._compute

    def close(self) -> None:
        """Release the network's memory; calls that are running go on to their end."""
        with self._starting:
            compute, self._compute, self._closed = self._compute, None, True
        if compute is not None:
            compute.engine.release()

    def reopen(self) -> Self:
        """Load the network again after `close`; where it is loaded, nothing happens.

        >>> import flarekit
        >>> segmenter = flarekit.load("mpu_net_liver")
        >>> segmenter.close()
        >>> segmenter.closed
        True
        >>> segmenter.reopen().closed
        False
        """
        with self._starting:
            self._closed = False
        self.start()
        return self

    @property
    def closed(self) -> bool:
        """Whether `close` was called, and `reopen` was not."""
        return self._closed

    def __enter__(self) -> Self:
        """Load the network where it is not."""
        return self.reopen()

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def segment(
        self,
        scan: Scan,
        *,
        spacing_mm: ArrayLike | None = None,
        affine: ArrayLike | None = None,
        probabilities: bool = False,
        statistics: bool = False,
        time_budget_s: float | None = None,
        progress: TileProgress = unheard,
    ) -> Result:
        """Segment one scan.

        Args:
            scan: a path (.nii, .nii.gz, .mha, .mhd, .nrrd), a NumPy array, a nibabel or a SimpleITK
                image; for predictors of several channels a list of these, in the predictor's order,
                or one array (channel, Z, Y, X). An array is (Z, Y, X): Z towards superior, Y
                towards posterior, X towards the patient's left, unless `affine` says otherwise.
            spacing_mm: of an array's voxels along (Z, Y, X), in mm. Files and images bring theirs.
            affine: (4, 4), of an array: from its index (x, y, z, 1) to mm, RAS+; then `spacing_mm`
                is not needed.
            probabilities: compute those of every class, too.
            statistics: measure every label while the scan is in memory, for `Result.statistics`.
            time_budget_s: seconds that this scan may take; as the segmenter was loaded where None.
            progress: called after every tile: how many are done, of how many. What it raises ends
                the call.

        Returns:
            Labels in the scan's own order: (x, y, z) for paths and nibabel images, (z, y, x) for
            SimpleITK images and arrays.

        Raises:
            InputError: a file cannot be read, or the channels do not fit together.
            UsageError: an array without spacing or affine, or something that is not a scan.
            BudgetError: it does not fit into the memory budget.
            DeviceError: the device has no room for a tile.

        >>> import numpy as np
        >>> import flarekit
        >>> segmenter = flarekit.load("abdomen_ct")
        >>> result = segmenter.segment("scan.nii.gz")
        >>> result.axes, result.labels.dtype
        ('xyz', dtype('uint8'))
        >>> air = np.full((12, 40, 40), -1000, np.int16)
        >>> segmenter.segment(air, spacing_mm=(5, 2, 2)).volumes_ml["liver"]
        0.0
        """
        source = scan_input(scan, self.spec, spacing_mm=spacing_mm, affine=affine)
        wanted = CaseExtras(probabilities=probabilities, statistics=statistics, progress=progress)
        done, seconds = self._segmented(source, wanted, time_budget_s)
        return Result.of(done, source, self.spec, seconds)

    def open(
        self,
        scan: Scan,
        *,
        spacing_mm: ArrayLike | None = None,
        affine: ArrayLike | None = None,
        time_budget_s: float | None = None,
        progress: TileProgress = unheard,
    ) -> OpenScan:
        """Segment one scan and keep what the network said, so that clicks can correct the result.

        Args:
            scan: a path, an array or an image, or a list with one per channel, as `segment` takes.
            spacing_mm: of an array's voxels along (Z, Y, X), in mm.
            affine: (4, 4), of an array: from its index (x, y, z, 1) to mm, RAS+.
            time_budget_s: seconds that this scan may take; as the segmenter was loaded where None.
            progress: called after every tile: how many are done, of how many.

        Returns:
            A context manager with `result` and `refine`.

        >>> import flarekit
        >>> segmenter = flarekit.load("att_umamba_petct")
        >>> with segmenter.open(["ct.nii.gz", "pet.nii.gz"]) as opened:
        ...     corrected = opened.refine({"tumor": [(4, 12, 7)], "background": [(0, 0, 0)]})
        >>> corrected.labels.shape == opened.result.labels.shape
        True
        """
        source = scan_input(scan, self.spec, spacing_mm=spacing_mm, affine=affine)
        wanted = CaseExtras(to_refine=True, progress=progress)
        done, seconds = self._segmented(source, wanted, time_budget_s)
        return OpenScan(done, source, self.spec, seconds)

    def context(self) -> RunContext:
        """Return what every case goes through; waits for nothing."""
        return RunContext(
            spec=self.spec,
            compute=self.start,
            memory=self._memory,
            everywhere=looks_everywhere(self.spec, self.options.mode),
            has_locator=self._needs_locator,
        )

    def _starting_point(self) -> Start:
        return Start(
            source=self._source,
            locator=self._source.locator if self._needs_locator else None,
            spec=self.spec,
            options=self.options,
            budget=self.budget,
            budget_of=self._budget_of,
            usable_mib=self._memory.usable_mib(),
        )

    @property
    def _needs_locator(self) -> bool:
        """Who looks everywhere has no use for it without a limit, nor a window from the centre."""
        if self._source.locator is None or not self.options.locator:
            return False
        unasked = self.budget.time_s is None and looks_everywhere(self.spec, self.options.mode)
        return self.spec.grid.order == "upwards" and not unasked

    def _segmented(
        self, source: ScanInput, wanted: CaseExtras, time_budget_s: float | None = None
    ) -> tuple[Segmented, float]:
        with self._turn():
            began = time.monotonic()
            self.start()
            budget_s = self.budget.time_s if time_budget_s is None else time_budget_s
            deadline = None if budget_s is None else began + budget_s
            context = self.context()
            try:
                source.check_memory(self._memory)
                ready = place_case(load_case(source.read, self.spec), context, wanted, deadline)
                done = compute_case(ready, context, wanted, deadline)
                context.compute().speeds.save()
            except FlarekitError as error:
                error.message = named(error.message, source.files)
                raise
            return done, time.monotonic() - began

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self.budget.ram_mib is None:
            yield
            return
        with self._turns:
            yield
