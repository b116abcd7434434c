"""Series of DICOM slices: which volumes there are below a folder, and one as voxels.

A series is not what one header says of it: slices are grouped by what they are and where they lie,
the geometry of every slice is checked, and each volume has a name of its own. What is left out is
told, file by file.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom.geometry import FEWEST_SLICES, affine_of
from flarekit.conventions.dicom.groups import (
    LeftOut,
    by_kind,
    by_phase,
    by_series,
    derived_uid,
    partings,
    usual_of,
    without_copies,
)
from flarekit.conventions.dicom.pixels import voxels_of
from flarekit.conventions.dicom.slices import (
    NOT_DICOM,
    Archive,
    Slice,
    Unusable,
    slice_in,
)
from flarekit.core.archives import Unpacked
from flarekit.core.errors import InputError, OutputError
from flarekit.core.files import inputs_below
from flarekit.core.names import safe_name
from flarekit.core.scan_files import ending_of
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)


_LONGEST_TITLE = 64


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices that make one volume.

    Attributes:
        name: its own, safe as a file's.
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID; empty where there is none.
        modality: CT, MR or PT.
        title: its description, for messages.
        slices: in the order of the volume's Z.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
        shape_ZYX: slices, rows, columns.
        corrected: what a PET is corrected for, `ATTN` say.
        notes: what was odd and how it was taken.
    """

    name: str
    uid: str
    study: str
    frame: str
    modality: str
    title: str
    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]
    shape_ZYX: tuple[int, int, int]
    corrected: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its first slice lies, for messages."""
        return self.slices[0].path.parent

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """Lowest and highest position of a voxel along the body."""
        steps = self.affine[2, :3] * (np.array(self.shape_ZYX[::-1]) - 1)
        first = float(self.affine[2, 3])
        return first + float(np.minimum(steps, 0).sum()), first + float(np.maximum(steps, 0).sum())


@dataclass(kw_only=True)
class Found(LeftOut):
    """What there is below a folder.

    Attributes:
        series: sorted by name.
    """

    series: list[Series] = field(default_factory=list)


def find_series(inputs: Sequence[Path], unpacked: Unpacked) -> Found:
    """Return the volumes of files and folders, archives unpacked, and everything that is left out.

    Args:
        inputs: which are only read.
        unpacked: gets what archives hold, and has to last as long as the volumes are read.
    """
    found = Found()
    slices = without_copies(_slices_below(inputs, found, unpacked), found)
    names: Counter[str] = Counter()
    for text, members in by_series(slices, found):
        volumes = list(_volumes(members, found))
        for number, series in enumerate(volumes, start=1):
            name = safe_name(f"{text}-{number}" if len(volumes) > 1 else text, otherwise="series")
            names[name] += 1
            name = name if names[name] == 1 else f"{name}_{names[name]}"
            notes = (*series.notes, *_missing(series, len(members)))
            if len(volumes) > 1:
                parted = f"is one of {len(volumes)} volumes in a series, of {len(members)} images"
                notes = (*notes, f"{parted}: slices {_ends(series)}")
            found.series.append(replace(series, name=name, notes=notes))
    found.series.sort(key=lambda series: series.name)
    return found


def _missing(series: Series, images: int) -> list[str]:
    """Return a note where a volume, or the images of its series, are fewer than its files state."""
    for keyword, here in (("NumberOfSlices", len(series.slices)), ("ImagesInAcquisition", images)):
        stated = usual_of(each.elements.text(keyword) for each in series.slices)
        if re.fullmatch(r"[0-9]{1,6}", stated) and int(stated) > here:
            return [f"its {keyword} is {stated}, and {here} are here: some may be missing"]
    return []


def _ends(series: Series) -> str:
    names = [series.slices[k].path.name for k in (0, -1)]
    return f"{names[0]} to {names[1]} ({len(series.slices)})"


def _volumes(slices: Sequence[Slice], found: Found) -> Iterator[Series]:
    """Yield the volumes of one series, the largest first; note what makes none."""
    for like in by_kind(slices):
        for members in by_phase(like, found):
            try:
                yield _series(members)
            except InputError as error:
                volumes = _acquisitions(members, found)
                yield from volumes
                if not volumes:
                    found.faults.append((members[0].modality, _with_count(error, members)))


def _acquisitions(slices: list[Slice], found: Found) -> list[Series]:
    """Return the volumes of slices that make none together, where all their parts make one."""
    for groups in partings(slices):
        large = [group for group in groups if len(group) >= FEWEST_SLICES]
        try:
            volumes = [_series(group) for group in large]
        except InputError:
            continue
        for group in groups[len(large) :]:  # they are sorted by size
            fault = f"{group[0].path}: lies apart from the {len(volumes)} volumes of its series"
            error = InputError(fault, fix="export it by itself, if it is needed")
            found.faults.append((group[0].modality, _with_count(error, group)))
        return volumes
    return []


def _slices_below(
    inputs: Sequence[Path], found: Found, unpacked: Unpacked | None
) -> Iterator[Slice]:
    archives, others = list[Path](), list[Path]()
    named = set[tuple[Path, str]]()  # as slices are
    closed: list[str] = []
    below = [inputs_below(each, closed) if each.is_dir() else [each] for each in inputs]
    found.faults += [("", fault) for fault in closed]
    for path in sorted({path for files in below for path in files}):
        what = slice_in(path)
        if isinstance(what, Slice):
            named.add(_numbered(path))
            yield what
        elif isinstance(what, Unusable):
            found.faults.append((what.modality, what.fault))
        elif isinstance(what, Archive):
            archives.append(path)
        elif what is not None and what.what == NOT_DICOM:
            others.append(path)
        elif what is not None:
            found.alone[what.what] += 1
    odd = [path for path in others if _numbered(path) in named]
    said = "is named as the slices beside it are, and is not DICOM (copy or export the file again)"
    found.faults += [("", f"{path}: {said}") for path in odd]
    found.alone.update([NOT_DICOM] * (len(others) - len(odd)))
    scans = [path for path in others if ending_of(path)]
    found.others += [f"{path}: is no DICOM; give it as an input by itself" for path in scans]
    if unpacked is None:
        found.alone.update(["archives within an archive"] * len(archives))
        return
    for path in archives:
        yield from _slices_in(path, found, unpacked)


def _numbered(path: Path) -> tuple[Path, str]:
    """Return what the files of a series have in common: folder, and name but for its numbers."""
    return path.parent, re.sub(r"\d+", "0", path.name)


def _slices_in(archive: Path, found: Found, unpacked: Unpacked) -> Iterator[Slice]:
    _LOG.info("%s: is unpacked", archive)
    try:
        folder = unpacked.add(archive)
    except (InputError, OutputError) as error:
        found.faults.append(("", str(error)))
    else:
        yield from _slices_below([folder], found, None)


def _series(slices: Sequence[Slice]) -> Series:
    """Return the volume of slices.

    Raises:
        InputError: they make none; which, and why.
    """
    first = slices[0]
    study = usual_of(each.study for each in slices)
    uid = usual_of(each.series for each in slices)
    title = _printable(usual_of(each.elements.text("SeriesDescription") for each in slices))
    ordered, affine, notes = affine_of(slices, repr(title or _printable(uid) or first.modality))
    rows, columns = first.shape_YX
    corrected = first.elements.texts("CorrectedImage")
    return Series(
        name="",
        uid=uid or derived_uid(str(first.path.parent), study),
        study=study,
        frame=usual_of(each.elements.text("FrameOfReferenceUID") for each in slices),
        modality=first.modality,
        title=title or first.modality,
        slices=tuple(ordered),
        affine=affine,
        shape_ZYX=(len(slices), rows, columns),
        corrected=corrected,
        notes=(*notes, *_notes(slices)),
    )


def _printable(text: str) -> str:
    """Return text of a header as it may stand in a message."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_TITLE])


def _notes(slices: Sequence[Slice]) -> list[str]:
    """Return what was odd about elements that could be used, or were not needed.

    Raises:
        InputError: some slices state how to scale their values and others do not.
    """
    notes = []
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        without = [each for each in slices if not each.elements.has(keyword)]
        if without:
            notes.append(f"{_some(without)} without {keyword}")
    for keyword, otherwise in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        without = [each for each in slices if not each.elements.has(keyword)]
        if 0 < len(without) < len(slices):
            raise InputError(
                f"{without[0].path}: its {keyword} is missing, other slices of the series have it",
                fix="export the series again",
            )
        if without and slices[0].modality != "MR":
            notes.append(f"has no {keyword}: {otherwise} is taken")
    notes += _unusual(slices)
    said = Counter(note for each in slices for note in set(each.elements.notes))
    notes += [f"{note} ({count} files)" for note, count in said.items()]
    return notes


def _unusual(slices: Sequence[Slice]) -> Iterator[str]:
    """Yield what elements say that those of a usual series do not."""

    def stated(keyword: str, *usual: str) -> list[str]:
        texts = {_printable(each.elements.text(keyword)) for each in slices}
        return sorted(texts - {"", *usual})

    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        if len(stated(keyword)) > 1:
            yield f"its {keyword} differs from slice to slice"
    if slices[0].modality != "MR" and any(each.slope < 0 for each in slices):
        yield "its RescaleSlope is negative: are its values what they are said to be?"
    if shown := stated("PhotometricInterpretation", "MONOCHROME2"):
        yield f"its PhotometricInterpretation is {', '.join(shown)}: values are taken as stored"
    if slices[0].modality == "CT" and (kinds := stated("RescaleType", "HU", "US")):
        yield f"its RescaleType is {', '.join(kinds)}, not HU"


def _some(slices: Sequence[Slice]) -> str:
    if len(slices) == 1:
        return f"{slices[0].path.name} is"
    return f"{slices[0].path.name} and {len(slices) - 1} more are"


def _with_count(error: InputError, slices: Sequence[Slice]) -> str:
    named = ", ".join(each.path.name for each in slices[:3])
    more = f" and {len(slices) - 3} more" if len(slices) > 3 else ""
    return f"{error} [{len(slices)} files: {named}{more}]"


def read_series(series: Series, factors: Sequence[float] | None = None) -> Volume:
    """Read all slices of a series, in its unit (HU of a CT).

    Integers stay integers where slopes and intercepts are whole numbers.

    Args:
        series: from `find_series`.
        factors: one per slice, by which its values are multiplied; SUV per unit, say.

    Raises:
        UnreadableVolumeError: a slice is damaged, or compressed in a way nothing here reads.
    """
    voxels, odd = voxels_of(series.slices)
    if factors is not None:
        voxels = voxels.astype(np.float32) * np.array(factors, np.float32)[:, None, None]
    geometry = Geometry(shape_ZYX=series.shape_ZYX, affine=series.affine, header=None)
    notes = (*series.notes, *odd)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=series.folder, warnings=notes)
