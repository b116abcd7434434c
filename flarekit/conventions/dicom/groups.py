"""Which slices belong to one volume: copies dropped, then parted by what they are and where."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flarekit.conventions.dicom.geometry import FEWEST_SLICES, one_position
from flarekit.conventions.dicom.pixels import voxels_of
from flarekit.conventions.dicom.slices import Slice
from flarekit.core.errors import UnreadableVolumeError

_SAME_DIRECTION = 1e-3  # between direction cosines: 0.4 mm across a CT
# what tells apart volumes of one series that lie at the same positions, the likeliest first
_APART: tuple[Callable[[Slice], object], ...] = (
    lambda each: each.elements.texts("ImageType"),
    *(
        (lambda each, keyword=keyword: each.elements.text(keyword))
        for keyword in (
            "StudyInstanceUID",
            "PatientID",
            "TemporalPositionIdentifier",
            "EchoNumbers",
            "EchoTime",
            "DiffusionBValue",
            "FrameReferenceTime",
            "TriggerTime",
            "ConvolutionKernel",
            "AcquisitionNumber",
            "AcquisitionTime",
            "FrameOfReferenceUID",
        )
    ),
)
_COPIES = "copies of a slice"
_MOST_PARTS = 4  # more are rotations of one scan, which lacks a slice


@dataclass(kw_only=True)
class LeftOut:
    """What of a folder is in no volume.

    Attributes:
        faults: modality, or empty where unknown, and what is wrong with a file or series.
        alone: what else there is -> how many files.
        others: a sentence for each scan in another format, which is among those.
    """

    faults: list[tuple[str, str]] = field(default_factory=list)
    alone: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)


def without_copies(slices: Iterable[Slice], left_out: LeftOut) -> list[Slice]:
    """Drop files that are the same slice again; of two versions the one with more identifiers."""
    kept: dict[tuple[object, ...], Slice] = {}
    for each in slices:
        place = tuple(np.round(each.position_mm, 2))
        key = (each.series, each.uid or str(each.path), place)
        other = kept.get(key)
        if other is None:
            kept[key] = each
            continue
        first, second = sorted((other, each), key=_identifiers, reverse=True)
        kept[key] = first
        same = first.study == second.study and first.shape_YX == second.shape_YX
        if same and _same_pixels(first, second):
            left_out.alone[_COPIES] += 1
            continue
        missing = [
            keyword
            for keyword in ("SeriesInstanceUID", "StudyInstanceUID")
            if not second.elements.has(keyword)
        ]
        reason = f"; its {' and '.join(missing)} is missing" if missing else ""
        fault = f"{second.path}: is another version of {first.path.name}, left out{reason}"
        left_out.faults.append((second.modality, fault))
    return sorted(kept.values(), key=lambda each: each.path)


def _identifiers(each: Slice) -> int:
    return bool(each.series) + bool(each.study)


def _same_pixels(one: Slice, other: Slice) -> bool:
    """Return whether two images show the same."""
    try:
        return bool(np.array_equal(voxels_of([one])[0], voxels_of([other])[0]))
    except UnreadableVolumeError:
        return False


def by_series(slices: Sequence[Slice], left_out: LeftOut) -> list[tuple[str, list[Slice]]]:
    """Group slices by the series, study and patient they state, as far as they state them."""
    groups: dict[str, list[Slice]] = {}
    for each in slices:
        groups.setdefault(each.series, []).append(each)
    unnamed = groups.pop("", [])
    result: list[tuple[str, list[Slice]]] = []
    for uid, members in sorted(groups.items()):
        for same in _by(members, lambda each: each.study):
            of_one = _by(same, lambda each: each.elements.text("PatientID"))
            result += [(uid, part) for part in of_one]
    folders: dict[tuple[Path, str, str], list[Slice]] = {}
    for each in unnamed:
        folders.setdefault((each.path.parent, each.study, each.modality), []).append(each)
    for (folder, study, _), members in folders.items():
        if len(members) >= FEWEST_SLICES:
            result.append((f"series-{derived_uid(str(folder.name), study)[-12:]}", members))
            continue
        left_out.faults += [
            (each.modality, f"{each.path}: its SeriesInstanceUID is missing") for each in members
        ]
    return result


def _by(slices: Sequence[Slice], value: Callable[[Slice], str]) -> list[list[Slice]]:
    """Part what shares a series' identifier; a few odd slices stay with the others."""
    usual = usual_of(map(value, slices))
    parts: dict[str, list[Slice]] = {usual: []}
    for each in slices:
        parts.setdefault(value(each), []).append(each)
    for odd in [odd for odd, part in parts.items() if len(part) < FEWEST_SLICES]:
        if odd != usual:
            parts[usual] += parts.pop(odd)
    if usual and "" in parts:
        parts[usual] += parts.pop("")
    return [part for _, part in sorted(parts.items()) if part]


def by_kind(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Part slices of another kind, size or direction; small differences are rounding."""
    groups: list[list[Slice]] = []
    for each in slices:
        for group in groups:
            first = group[0]
            near = np.abs(first.directions - each.directions).max() <= _SAME_DIRECTION
            if near and (first.modality, first.shape_YX) == (each.modality, each.shape_YX):
                group.append(each)
                break
        else:
            groups.append([each])
    return sorted(groups, key=len, reverse=True)


def by_phase(slices: list[Slice], left_out: LeftOut) -> list[list[Slice]]:
    """Part volumes that lie at the same positions by the first element that tells them apart.

    A few images apart from a volume are parted from it, too, and are then too few for another. Of
    reconstructions by two kernels, one may lie just between the other.
    """
    if not one_position(slices):
        return _by(slices, lambda each: each.elements.text("ConvolutionKernel"))
    for value in _APART:
        groups = _parted(slices, value)
        if groups is not None:
            return groups
    slices = _without_doubles(slices, left_out)
    if not one_position(slices):
        return [slices]
    return _parted(slices, lambda each: each.path.parent) or [slices]


def partings(slices: list[Slice]) -> Iterator[list[list[Slice]]]:
    """Yield the ways in which elements part slices that make no volume together into a few.

    Two acquisitions of one series may follow each other with a gap, or lie between each other.
    """
    for value in _APART:
        groups = _parted(slices, value)
        if groups is not None and len(groups) <= _MOST_PARTS:
            yield groups


def _parted(slices: list[Slice], value: Callable[[Slice], object]) -> list[list[Slice]] | None:
    """Part slices by a value; None where that makes no volumes of most of them."""
    parts: dict[object, list[Slice]] = {}
    for each in slices:
        parts.setdefault(value(each), []).append(each)
    groups = sorted(parts.values(), key=len, reverse=True)
    volumes = [group for group in groups if len(group) >= FEWEST_SLICES]
    most = 2 * sum(map(len, volumes)) > len(slices)
    parted = len(groups) > 1 and most and not any(map(one_position, volumes))
    return groups if parted else None


def _without_doubles(slices: list[Slice], left_out: LeftOut) -> list[Slice]:
    """Drop images that show what another one at the same position shows."""
    kept: dict[tuple[float, ...], list[Slice]] = {}
    for each in slices:
        same = kept.setdefault(tuple(np.round(each.position_mm, 2)), [])
        if any(_same_pixels(each, other) for other in same):
            left_out.alone[_COPIES] += 1
        else:
            same.append(each)
    return [each for same in kept.values() for each in same]


def usual_of(texts: Iterable[str]) -> str:
    """Return the most frequent text that is not empty; empty where there is none."""
    counted = Counter(text for text in texts if text)
    return counted.most_common(1)[0][0] if counted else ""


def derived_uid(*texts: str) -> str:
    """Return an identifier that follows from text, for where a file states none."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
