"""DICOM: a folder with series in, one segmentation object (SEG) per case out.

The folder may hold one series, a study or many, in any tree, and zips or tars of such, which are
unpacked into a temporary folder until the run is over; what is not a CT, MR or PET image is left
alone. A predictor with one channel gets every CT; one with two gets the PET/CT of every study, the
PET as SUV by body weight and the CT on the PET's grid. Masks are named after the series whose
voxels they have; a series that holds several volumes has a mask for each, numbered. Files of
images that cannot be used are named, and are in `left_out` of the cases. Needs the packages of the
extra `dicom`.

A case that failed leaves nothing: an empty segmentation would read as "nothing found".

Settings of a predictor: `modalities` (of its channels, where they are not ["CT"] or ["CT", "PT"]),
`also` ("rtstruct" and "nifti": what each mask is written as besides). `predictor` and
`weights_sha256` are what its objects say of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case, Cases
from flarekit.conventions._case import (
    NothingUsableError,
    check_folder,
    own_case,
    refuse_empty_mask,
)
from flarekit.conventions._grid import onto
from flarekit.conventions.dicom.algorithm import Algorithm
from flarekit.conventions.dicom.rtstruct import structure_set
from flarekit.conventions.dicom.seg import segmentation_object
from flarekit.conventions.dicom.series import Found, Series, find_series, read_series
from flarekit.conventions.dicom.suv import suv_factors
from flarekit.core.archives import Unpacked
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.extras import require
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.plausible import with_doubts
from flarekit.core.scan_files import write_mask
from flarekit.core.tables import Table, checked
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)
_OUTSIDE = {"CT": -1024.0, "MR": 0.0, "PT": 0.0}
_MOST_NAMED = 3
_ENDINGS = {"rtstruct": ".rtstruct.dcm", "nifti": ".nii.gz"}
_USUAL = {1: ("CT",), 2: ("CT", "PT")}


class _Settings(Table):
    modalities: tuple[Literal["CT", "MR", "PT"], ...] | None = None
    also: tuple[Literal["rtstruct", "nifti"], ...] = ()
    predictor: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class DicomCase(Case):
    """Series that are segmented together.

    Attributes:
        series: one per channel.
        grid: the one whose voxels the mask has.
    """

    series: tuple[Series, ...]
    grid: Series


def create(settings: Mapping[str, Any], labels: Mapping[str, int]) -> Dicom:
    """Return the convention as a predictor sets it up.

    Raises:
        PredictorError: unknown settings, or a modality twice.
    """
    parsed = checked(_Settings, settings, source="settings of the convention 'dicom'")
    if parsed.modalities is not None and len(set(parsed.modalities)) < len(parsed.modalities):
        raise PredictorError(
            "dicom: two channels have the same modality", fix="name each modality once"
        )
    algorithm = Algorithm(predictor=parsed.predictor, weights_sha256=parsed.weights_sha256)
    return Dicom(
        modalities=parsed.modalities, also=parsed.also, algorithm=algorithm, labels=dict(labels)
    )


@dataclass(frozen=True, kw_only=True)
class Dicom:
    """The convention; see the module.

    Attributes:
        modalities: of a predictor's channels; the usual ones where None.
        labels: its label names -> values in the mask; "label V" where it is not known.
        also: what each mask is written as besides, `rtstruct` and `nifti`.
        algorithm: what makes the masks.
    """

    modalities: tuple[str, ...] | None
    labels: Mapping[str, int]
    also: tuple[str, ...] = ()
    algorithm: Algorithm = field(default_factory=Algorithm)

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return one case per series, or per PET series where there are several channels.

        Raises:
            InputError: no such folder, or no usable series in it.
        """
        check_folder(input_dir)
        return self.find_in([input_dir], channel_count)

    def find_in(self, inputs: Sequence[Path], channel_count: int) -> Sequence[Case]:
        """Return the cases of files and folders, taken together.

        Raises:
            InputError: a path is missing, or no usable series in it; the message says what is wrong
                with others.
            PredictorError: a number of channels whose modalities are not clear.
            UsageError: pydicom or highdicom is not installed.
        """
        for package in ("pydicom", "highdicom"):
            require(package, "dicom")
        for path in inputs:
            if not path.exists():
                raise InputError(f"{path}: there is no such file or folder", fix="check the path")
        modalities = self.modalities or _USUAL.get(channel_count, ())
        if len(modalities) != channel_count:
            raise PredictorError(
                f"dicom: the modalities of {channel_count} channels are not clear",
                fix='write modalities = ["CT", ...], one per channel, under '
                "[convention_settings] in predictor.toml",
            )
        unpacked = Unpacked()
        try:
            return self._found(inputs, modalities, unpacked)
        except BaseException:  # an interruption as well: nothing unpacked is left behind
            unpacked.close()
            raise

    def _found(
        self, inputs: Sequence[Path], modalities: Sequence[str], unpacked: Unpacked
    ) -> Sequence[Case]:
        found = find_series(inputs, unpacked)
        where = ", ".join(map(str, inputs[:_MOST_NAMED]))
        cases, unpaired = _cases(found.series, modalities)
        faults = [text for kind, text in found.faults if kind in ("", *modalities)] + unpaired
        alone = ", ".join(f"{count} {what}" for what, count in sorted(found.alone.items()))
        if not cases:
            raise _nothing(where, modalities, found, faults, alone)
        if alone:
            _LOG.info("%s: left alone: %s", where, alone)
        faults += found.others
        for fault in faults:
            _LOG.warning("left out: %s", fault)
        return Cases(cases, left_out=faults, unpacked=unpacked)

    def read_case(self, case: Case) -> list[Volume]:
        """Read all series of a case; PET as SUV, everything on the grid of the mask.

        Raises:
            InputError: a slice is damaged, or SUV cannot be computed.
        """
        wanted = own_case(case, DicomCase)
        volumes = {wanted.grid.name: _read(wanted.grid)}
        reference = volumes[wanted.grid.name].geometry
        for each in wanted.series:
            if each.name not in volumes:
                outside = _OUTSIDE[each.modality]
                volumes[each.name] = onto(_read(each), reference, outside=outside)
        return [volumes[each.name] for each in wanted.series]

    def further_outputs(self, case: Case) -> Sequence[Path]:
        """Return the structure set and the NIfTI file of a case, where they are wanted."""
        return [_beside(case, ending) for what, ending in _ENDINGS.items() if what in self.also]

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        geometry: Geometry,
        output_dir: Path,
    ) -> Path:
        """Write a DICOM SEG that refers to the series whose voxels the mask has, and what else is.

        Raises:
            OutputError: it could not be written.
        """
        values = np.flatnonzero(np.bincount(label_map_ZYX.ravel(), minlength=256))
        labels = (
            self.labels
            or {f"label {value}": int(value) for value in values if value}
            or {"label 1": 1}
        )
        path = output_dir / case.mask
        make_folder(path.parent)
        of_case = label_map_ZYX, own_case(case, DicomCase).grid, labels, self.algorithm
        if "rtstruct" in self.also:
            further = output_dir / _beside(case, _ENDINGS["rtstruct"])
            write_atomically(further, structure_set(*of_case))
        if "nifti" in self.also:
            write_mask(output_dir / _beside(case, _ENDINGS["nifti"]), label_map_ZYX, geometry)
        write_atomically(path, segmentation_object(*of_case))
        return path

    def share_of(self, case: Case) -> float:
        """Return which part of its folders' bytes a case's series are."""
        series = own_case(case, DicomCase).series
        own = sum(_size_of(each.path) for every in series for each in every.slices)
        whole = sum(
            _size_of(path) for every in series for path in every.folder.rglob("*") if path.is_file()
        )
        return min(1.0, own / whole) if own and whole else 1.0

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Refuse to write an empty mask; the module's docstring says why.

        Raises:
            OutputError: always.
        """
        refuse_empty_mask(case, output_dir)


def _beside(case: Case, ending: str) -> Path:
    return case.mask.with_name(f"{case.mask.name.removesuffix('.dcm')}{ending}")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _nothing(
    where: str, modalities: Sequence[str], found: Found, faults: Sequence[str], alone: str
) -> InputError:
    have = ", ".join(f"{each.modality} {each.title!r}" for each in found.series) or "none"
    rest = f"; also there: {alone}" if alone else ""
    nothing = f"{where}: no {' with '.join(modalities)} to segment (series: {have}{rest})"
    if not faults:
        return InputError(nothing, fix="name a folder with such series")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return NothingUsableError(nothing, fix=faults[0] + more)


def _cases(found: Sequence[Series], modalities: Sequence[str]) -> tuple[list[Case], list[str]]:
    """Return the cases, and what is wrong with series that would be some but for their partners."""
    leading = "PT" if "PT" in modalities else modalities[0]
    cases: list[Case] = []
    faults = []
    for grid in found:
        if grid.modality != leading:
            continue
        if leading == "PT" and "ATTN" not in grid.corrected:
            faults += _uncorrected(grid, found)
            continue
        partners = {
            modality: grid if modality == leading else _partner(grid, found, modality)
            for modality in modalities
        }
        chosen = [series for series in partners.values() if series is not None]
        missing = [modality for modality, series in partners.items() if series is None]
        if missing:
            faults.append(
                f"{grid.folder}: {grid.modality} {grid.title!r} has no {' and no '.join(missing)} "
                "of the same study and frame of reference that covers any of it"
            )
            continue
        cases.append(
            DicomCase(
                case_id=grid.name,
                channels=tuple(series.folder for series in chosen),
                mask=Path(f"{grid.name}.dcm"),
                series=tuple(chosen),
                grid=grid,
            )
        )
    return cases, faults


def _uncorrected(pet: Series, found: Sequence[Series]) -> list[str]:
    """Return what is wrong with a PET without attenuation correction.

    Nothing is where its study has one with it: scanners write both, and that one is segmented.
    """
    name = f"{pet.folder}: PT {pet.title!r}"
    if not any(pet.corrected):
        return [
            f"{name}: its CorrectedImage is missing or empty, so whether it is corrected for "
            "attenuation is not known"
        ]
    if any(each.study == pet.study and "ATTN" in each.corrected for each in found):
        _LOG.info("%s is not corrected for attenuation: left alone", name)
        return []
    stated = ", ".join(filter(None, pet.corrected))
    return [
        f"{name} is not corrected for attenuation, and SUV needs that: its CorrectedImage lists "
        f"{stated}, not ATTN (export the corrected series)"
    ]


def _partner(grid: Series, found: Sequence[Series], modality: str) -> Series | None:
    """Return the series of the same study and position that covers most of another.

    A series without a frame of reference goes with any of its study.
    """
    low, high = grid.z_range_mm

    def common_mm(series: Series) -> float:
        start, end = series.z_range_mm
        return min(end, high) - max(start, low)

    others = [
        series
        for series in found
        if series.modality == modality
        and series.study == grid.study
        and (series.frame == grid.frame or not (series.frame and grid.frame))
        and common_mm(series) >= 0
    ]
    if not others:
        return None

    def covers(series: Series) -> tuple[bool, float, int]:
        return series.frame == grid.frame, common_mm(series), series.shape_ZYX[0]

    best = max(others, key=covers)
    if len(others) > 1:
        names = ", ".join(repr(series.title) for series in others)
        _LOG.warning("%s: of %s, %r goes with %r", grid.folder, names, best.title, grid.title)
    return best


def _read(series: Series) -> Volume:
    if series.modality != "PT":
        return with_doubts(read_series(series), series.modality)
    factors, notes = suv_factors(series)
    volume = read_series(series, factors)
    return with_doubts(replace(volume, warnings=(*volume.warnings, *notes)), "PET")
