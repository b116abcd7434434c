"""FLARE25, task 1: `X.npz` with a CT and lines across its lesions in, `X.npz` with masks out.

In: `imgs` (D, H, W) uint8, windowed to 0..255; `recist` (D, H, W), each lesion k drawn as a line of
the value k on one slice; `spacing` (x, y, z) in mm; maybe `direction` and `origin`. Out: `segs`
(D, H, W) uint8, lesion k = k, and `spacing`. Nothing is ever unpickled.

Every line is a case: the network sees a volume of interest around it. What it finds is bounded by
the line's length and direction (`flarekit/core/line.py`); what lesions share goes to the nearest
line. The file is written when its last lesion is there.

Settings of a predictor: `lesion` (the label, where there are several), `channels` (`CT`, `line`),
`line` (how that channel is drawn: `kind` point, gaussian or exp, `scale`, `unit`; as the channel
says it was `drawn` in training, or else exp(-d / 10 mm)), `window_hu` (of `imgs`; guessed from the
histogram where not set), `black_hu` (of what is black in a window that hides lungs), `context` and
`depth` (width and depth of the volume of interest in lengths of the line), `least_mm` (its least
width), `reach` (how far from either end of the line the lesion may lie, in its lengths; 0 for no
prior).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flarekit.conventions import Case, Points
from flarekit.conventions._case import Cases, check_folder, check_whole, own_case, own_geometry
from flarekit.conventions._drawn import draw, encoding_of
from flarekit.conventions._lesion import lesion_value
from flarekit.conventions.flare_recist import IMAGE
from flarekit.conventions.flare_recist.cases import (
    BoxGeometry,
    DamagedCase,
    LineCase,
    empty_arrays,
    is_input,
    line_cases,
    plain_case,
)
from flarekit.conventions.flare_recist.lines import Line
from flarekit.conventions.flare_recist.npz import write_npz
from flarekit.conventions.flare_recist.scan import Box, stored_window
from flarekit.core.channels import Drawn
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.line import body_of_line, lesion_at_line
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume
from flarekit.evaluation.diameters import recist_diameter_mm

_LINE = "line"
_USUAL = Drawn(kind="exp", scale=10.0, unit="mm")
_BRIGHTEST = 255
_LUNG_HU = -650.0  # a window that begins above it shows nothing of lungs
_MOST_HIDDEN = 0.2  # of a line's voxels that are black: more, and the CT does not show the lesion
_EMPTY_BOX = 16  # voxels along each axis that are looked at where a file has no line
Positive = Annotated[float, Field(gt=0, le=1000)]


class _Settings(Table):
    lesion: str | None = None
    channels: tuple[Literal["CT", "line"], ...] = ("CT",)
    line: Drawn | None = None
    drawn: dict[str, Drawn] = Field(default_factory=dict)
    window_hu: tuple[float, float] | None = None
    black_hu: float = -850.0
    context: Positive = 1.8
    depth: Positive = 1.5
    least_mm: Positive = 20.0
    reach: Annotated[float, Field(ge=0, le=100)] = 1.15


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> FlareRecist:
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings, or no label that is the lesion.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'flare_recist'")
    encoding = encoding_of(parsed.line, parsed.drawn, _USUAL)
    lesion = lesion_value(labels, parsed.lesion)
    return FlareRecist(settings=parsed, lesion=lesion, encoding=encoding)


@dataclass(frozen=True, kw_only=True)
class FlareRecist:
    """The convention; see the module.

    Attributes:
        settings: a predictor's.
        lesion: the value of its lesions.
        encoding: how the channel `line` is drawn.
    """

    settings: _Settings
    lesion: int
    encoding: Drawn

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return one case per line, file by file; of a file that cannot be used, one as well.

        Raises:
            InputError: no such folder, or no `.npz` file in it.
            PredictorError: the predictor takes other channels.
        """
        check_folder(input_dir)
        paths = sorted(path for path in input_dir.iterdir() if is_input(path))
        if not paths:
            raise InputError(f"{input_dir}: no .npz file in it", fix="put CASE.npz there")
        if channel_count != len(self.settings.channels):
            raise PredictorError(
                f"flare_recist: which {channel_count} channels the predictor takes is not clear",
                fix='write channels = ["CT", "line"], in the order of the network, under '
                "[convention_settings] in predictor.toml",
            )
        cases = [case for path in paths for case in self._cases_of(path)]
        counts = Counter(case.case_id for case in cases)
        # X_lesion_1.npz without a line beside lesion 1 of X.npz
        return Cases(
            replace(case, case_id=case.mask.name)
            if counts[case.case_id] > 1 and case.case_id == case.mask.stem
            else case
            for case in cases
        )

    def _cases_of(self, path: Path) -> list[Case]:
        try:
            return line_cases(path, len(self.settings.channels))
        except InputError as error:
            plain = plain_case(path, len(self.settings.channels))
            return [DamagedCase(**plain, error=error)]

    def read_case(self, case: Case) -> list[Volume]:
        """Read the surroundings of one line, in HU; axes as stored.

        Raises:
            InputError: the file is damaged.
        """
        if isinstance(case, DamagedCase):
            raise case.error
        own = own_case(case, LineCase)
        voxels = own.scan.voxels()
        inside, placed, shape = self._boxes(own)
        low, high, notes = self._window(voxels)
        shown = low + voxels[inside].astype(np.float32) * np.float32((high - low) / _BRIGHTEST)
        hu = np.full(shape, shown.min(), np.float32)
        hu[placed] = shown
        if low > _LUNG_HU and voxels.dtype == np.uint8:
            hu[hu <= low] = self.settings.black_hu
        z, y, x = own.masks.spacing_mm_ZYX
        geometry = BoxGeometry(
            shape_ZYX=shape,
            affine=np.diag([-x, -y, z, 1.0]),  # towards left, posterior, superior
            header=None,
            inside=inside,
            placed=placed,
            visible=own.line is None or _hidden(voxels, own.line) < _MOST_HIDDEN,
        )
        path, notes = case.channels[0], (*own.notes, *own.scan.notes, *notes)
        volumes = {"CT": Volume(voxels_ZYX=hu, geometry=geometry, path=path, warnings=notes)}
        if _LINE in self.settings.channels:
            drawn = self._drawn(own, geometry)
            volumes[_LINE] = Volume(voxels_ZYX=drawn, geometry=geometry, path=path)
        return [volumes[name] for name in self.settings.channels]

    def _window(self, voxels_ZYX: NDArray[Any]) -> tuple[float, float, tuple[str, ...]]:
        """Return which HU black and white are, and what was odd."""
        if voxels_ZYX.dtype != np.uint8:
            note = f"{IMAGE} is not windowed to 0..255: its values are taken for HU"
            return 0.0, float(_BRIGHTEST), (note,)
        stated = self.settings.window_hu or stored_window(voxels_ZYX)
        if stated is None:
            return -160.0, 240.0, (f"{IMAGE} is all black or white",)
        return *stated, ()

    def _boxes(self, case: LineCase) -> tuple[Box, Box, tuple[int, int, int]]:
        """Return what of a CT is shown, where it is in what is shown, and the size of that."""
        extents, settings = case.scan.shape_ZYX, self.settings
        if case.line is None:
            few = [slice(0, min(n, _EMPTY_BOX)) for n in extents]
            return _three(few), _three(few), (few[0].stop, few[1].stop, few[2].stop)
        width_mm = max(settings.context * case.line.length_mm, settings.least_mm)
        depth_mm = max(settings.depth * case.line.length_mm, settings.least_mm)
        inside, placed, shape = [], [], []
        for middle, extent, mm, size_mm in zip(
            case.line.middle_ZYX,
            extents,
            case.masks.spacing_mm_ZYX,
            (depth_mm, width_mm, width_mm),
            strict=True,
        ):
            # no further than the CT goes on one side at least: the rest shows nothing
            half = min(int(np.ceil(size_mm / 2 / mm)), max(middle, extent - 1 - middle))
            low, high = max(0, middle - half), min(extent, middle + half + 1)
            inside.append(slice(low, high))
            placed.append(slice(low - (middle - half), high - (middle - half)))
            shape.append(2 * half + 1)
        return _three(inside), _three(placed), (shape[0], shape[1], shape[2])

    def _drawn(self, case: LineCase, geometry: BoxGeometry) -> NDArray[np.float32]:
        """Draw the line as a channel."""
        places = np.zeros((0, 3), np.int64)
        if case.line is not None:
            places = _shifted(case.line, geometry)
        return draw(places, geometry.shape_ZYX, case.masks.spacing_mm_ZYX, self.encoding)

    def read_points(self, case: Case, volumes: Sequence[Volume]) -> Points:
        """Return the voxels of the `line` as indices into what was read."""
        own, geometry = own_case(case, LineCase), volumes[0].geometry
        if own.line is None or not isinstance(geometry, BoxGeometry):
            return {}
        return {_LINE: _shifted(own.line, geometry)}

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Add a lesion to its file, which is written with the last one.

        Raises:
            OutputError: it could not be written.
        """
        own = own_case(case, LineCase)
        box = own_geometry(geometry, BoxGeometry)
        found = label_map_ZYX == self.lesion
        spacing = own.masks.spacing_mm_ZYX
        if own.line is not None:
            places = _shifted(own.line, box)
            beyond = np.ones(found.shape, np.bool_)
            beyond[box.placed] = False
            found[beyond] = False
            reach, visible = self.settings.reach, box.visible
            found = lesion_at_line(found, spacing, places, reach, visible=visible)
            own.measured["line_mm"] = round(own.line.length_mm, 2)
            own.measured["diameter_mm"] = round(recist_diameter_mm(found, spacing), 2)
            own.measured["volume_ml"] = round(float(found.sum()) * float(np.prod(spacing)) / 1e3, 4)
        return own.masks.put(own.index, box.inside, found[box.placed], output_dir / case.mask)

    def measured(self, case: Case) -> Mapping[str, float]:
        """Return the lengths of line and mask, in mm, and the mask's volume, once it is written.

        The diameter is the longest one in any slice.
        """
        return own_case(case, LineCase).measured

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write a body of the line's length for a lesion that failed; zeros where there is no line.

        Raises:
            OutputError: it could not be written.
        """
        path = output_dir / case.mask
        if isinstance(case, DamagedCase):
            write_npz(path, empty_arrays(case.channels[0]))
            return path
        own = own_case(case, LineCase)
        inside, placed, shape = self._boxes(own)
        body = np.zeros(shape, np.bool_)
        if own.line is not None:
            places = own.line.places_ZYX - _corner(inside, placed)
            body = body_of_line(shape, own.masks.spacing_mm_ZYX, places)
        return own.masks.put(own.index, inside, body[placed], path)

    def share_of(self, case: Case) -> float:
        """Return which part of its file a lesion is."""
        return 1 / max(1, len(case.masks.lines)) if isinstance(case, LineCase) else 1.0

    def finish_run(self, cases: Sequence[Case], output_dir: Path) -> None:
        """Say so where lesions left no mask, so that their file could not be written.

        Raises:
            OutputError: naming the cases.
        """
        own = [case for case in cases if isinstance(case, LineCase)]
        check_whole([case for case in own if not case.masks.has(case.index)], output_dir)


def _shifted(line: Line, geometry: BoxGeometry) -> NDArray[np.int64]:
    """Return the voxels of a line as indices into what is shown."""
    corner = _corner(geometry.inside, geometry.placed)
    shifted: NDArray[np.int64] = line.places_ZYX - corner
    return shifted


def _corner(inside: Box, placed: Box) -> NDArray[np.int64]:
    """Return which voxel of the CT the first one of what is shown is; it may lie beyond."""
    return np.array([side.start - at.start for side, at in zip(inside, placed, strict=True)])


def _hidden(voxels_ZYX: NDArray[Any], line: Line) -> float:
    """Return the share of a line's voxels that are black."""
    if voxels_ZYX.dtype != np.uint8:
        return 0.0
    return float(np.mean(voxels_ZYX[tuple(line.places_ZYX.T)] == 0))


def _three(parts: Sequence[slice]) -> Box:
    z, y, x = parts
    return z, y, x
