"""ULS23: volumes of interest stacked along Z in one file, one lesion at the centre of each.

In: `images/stacked-3d-ct-lesion-volumes/X.mha` (128 x 256 x 256 voxels each, Z, Y, X) and
`stacked-3d-volumetric-spacings.json` (one [x, y, z] in mm each; the file's own spacing means
nothing). Out: `images/ct-binary-uls/X.mha`, the same size and header, 0 and 1.
https://github.com/DIAGNijmegen/ULS23

Every volume of interest is a case. It is read when its turn comes, and of its mask only the
compressed bytes are kept, so memory does not grow with their number; the file is written when the
last mask is there. A mask is one component, the one at the centre or nearest to it, and nothing in
the padding; never nothing, since an empty one scores zero.

Settings of a predictor: `lesion` (the label, where there are several).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case
from flarekit.conventions._arranging import names_of
from flarekit.conventions._case import check_folder, check_whole, own_case, own_geometry
from flarekit.conventions._lesion import lesion_value
from flarekit.conventions._platform_images import images_in, only_image, read_json
from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.conventions.uls23.stack import MaskStack, StackReader
from flarekit.core.boxes import Box, box_of
from flarekit.core.central import central_component
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.metaheader import read_header
from flarekit.core.metaimage import usable
from flarekit.core.plausible import is_spacing
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume

_IMAGES = Path("images", "stacked-3d-ct-lesion-volumes")
_SPACINGS = "stacked-3d-volumetric-spacings.json"
_MASKS = Path("images", "ct-binary-uls")
_AIR_HU = -1024.0
_SHOWN = 60  # characters of what is no spacing

_Spacing = tuple[float, float, float]


class _Settings(Table):
    lesion: str | None = None


@dataclass(frozen=True, kw_only=True)
class VoiGeometry(Geometry):
    """Where the voxels that a predictor sees lie, and where they are in their volume of interest.

    Attributes:
        inside: the box that is no padding; None for everywhere.
        shown: the box that was handed on.
    """

    inside: tuple[slice, ...] | None
    shown: tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Voi(Case):
    """One volume of interest.

    Attributes:
        index: its place in the stack, from 0.
        spacing_mm_ZYX: from the JSON.
        scans: where it is read from, shared by all of the stack.
        masks: where its mask goes, shared by all of the stack.
    """

    index: int
    spacing_mm_ZYX: _Spacing
    scans: StackReader
    masks: MaskStack


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> Uls23:
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings, or no label that is the lesion.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'uls23'")
    return Uls23(lesion=lesion_value(labels, parsed.lesion))


@dataclass(frozen=True, kw_only=True)
class Uls23:
    """The convention; see the module.

    Attributes:
        lesion: the value of a predictor's lesions.
    """

    lesion: int

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return one case per volume of interest, in the order of the stack.

        Raises:
            InputError: no stack or no spacings, several stacks, or a size that the spacings do
                not fit.
            PredictorError: the predictor takes more than the CT.
        """
        check_folder(input_dir)
        if channel_count != 1:
            raise PredictorError(
                f"uls23 has one channel, the predictor takes {channel_count}",
                fix="choose a predictor that takes one channel",
            )
        if not images_in(input_dir / _IMAGES):
            raise InputError(
                f"{input_dir / _IMAGES}: no file named *.mha; {names_of(input_dir)}",
                fix="volumes of interest go there, stacked along Z in one .mha; "
                "flarekit arrange FILES --convention uls23 -o INPUT stacks them",
            )
        path = only_image(input_dir / _IMAGES)
        header = read_header(path)
        z, y, x = header.shape_ZYX
        deep, high, wide = SHAPE_ZYX
        if (y, x) != (high, wide) or z % deep:
            raise InputError(
                f"{path}: is {z} x {y} x {x} voxels, not N x {deep} x {high} x {wide}",
                fix="stack volumes of interest of that size along Z",
            )
        spacings = _spacings(input_dir / _SPACINGS)
        count = z // deep
        if len(spacings) != count:
            raise InputError(
                f"{input_dir / _SPACINGS}: has {len(spacings)} spacings for {count} volumes",
                fix="give one [x, y, z] in mm per volume of interest",
            )
        scans = StackReader(path, header, depth=deep)
        masks = MaskStack(header.geometry, count=count)
        return [
            Voi(
                case_id=f"{path.stem}-{index:04d}",
                channels=(path,),
                mask=_MASKS / path.name,
                index=index,
                spacing_mm_ZYX=spacing,
                scans=scans,
                masks=masks,
            )
            for index, spacing in enumerate(spacings)
        ]

    def read_case(self, case: Case) -> list[Volume]:
        """Read one volume of interest; its axes are taken in the order and direction stored.

        Padding that lies on both sides of the lesion is left out: a network that sees the whole
        width of a volume would else see the lesion smaller than it need be.

        Raises:
            InputError: the stack ends before it, or is damaged.
        """
        voi = own_case(case, Voi)
        voxels, notes = usable(voi.scans.read(voi.index), case.channels[0], air=_AIR_HU)
        inside = _inside_padding(voxels)
        shown = (slice(None),) * 3 if inside is None else _around_centre(inside)
        voxels = voxels[shown]
        z, y, x = voi.spacing_mm_ZYX
        depth, height, width = voxels.shape
        geometry = VoiGeometry(
            shape_ZYX=(depth, height, width),
            affine=np.diag([-x, -y, z, 1.0]),  # towards left, posterior, superior
            header=None,
            inside=inside,
            shown=shown,
        )
        return [Volume(voxels_ZYX=voxels, geometry=geometry, path=case.channels[0], warnings=notes)]

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Add a mask to the stack, which is written with the last one.

        Raises:
            OutputError: it could not be written.
        """
        voi = own_case(case, Voi)
        box = own_geometry(geometry, VoiGeometry)
        allowed = None
        if box.inside is not None:
            allowed = np.zeros(SHAPE_ZYX, np.bool_)
            allowed[box.inside] = True
        found = np.zeros(SHAPE_ZYX, np.bool_)
        found[box.shown] = label_map_ZYX == self.lesion
        mask = central_component(found, voi.spacing_mm_ZYX, allowed)
        return voi.masks.put(voi.index, mask, output_dir / case.mask)

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Add a ball of 10 mm at the centre for a case that failed: an empty mask scores zero.

        Raises:
            OutputError: it could not be written.
        """
        voi = own_case(case, Voi)
        ball = central_component(np.zeros(SHAPE_ZYX, np.bool_), voi.spacing_mm_ZYX)
        return voi.masks.put(voi.index, ball, output_dir / case.mask)

    def share_of(self, case: Case) -> float:
        """Return which part of the stack a volume of interest is."""
        return 1 / own_case(case, Voi).masks.count

    def finish_run(self, cases: Sequence[Case], output_dir: Path) -> None:
        """Say so where cases left no mask, so that the stack could not be written.

        Raises:
            OutputError: naming the cases.
        """
        vois = [own_case(case, Voi) for case in cases]
        check_whole([voi for voi in vois if not voi.masks.has(voi.index)], output_dir)


def _spacings(path: Path) -> list[_Spacing]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: is not a list", fix="write one [x, y, z] in mm per volume")
    spacings = []
    for index, entry in enumerate(content):
        valid = isinstance(entry, list) and len(entry) == 3
        if not valid or not all(type(mm) in (int, float) and is_spacing(mm) for mm in entry):
            raise InputError(
                f"{path}: entry {index} ({str(entry)[:_SHOWN]}) is not a spacing",
                fix="write [x, y, z] in mm",
            )
        x, y, z = (float(mm) for mm in entry)
        spacings.append((z, y, x))
    return spacings


def _inside_padding(voxels_ZYX: NDArray[Any]) -> Box | None:
    """Return the box of a volume that is no padding; None for everywhere.

    What was cut out beyond the scan's border is filled with the volume's minimum, or less: whole
    slices, rows and columns at its faces that hold nothing else.
    """
    return box_of(voxels_ZYX > voxels_ZYX.min())


def _around_centre(inside: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return the smallest box with the volume's centre in its middle that holds another box."""
    around = []
    for part, extent in zip(inside, SHAPE_ZYX, strict=True):
        middle = extent // 2
        reach = min(middle, max(middle - part.start, part.stop - middle))
        around.append(slice(middle - reach, middle + reach))
    return tuple(around)
