"""What a mask and its scan tell of every label: volume, intensity, parts, place.

`statistics.csv` has a line per case and label. Components are connected by faces, edges or corners.
"""

import csv
import io
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.core.channels import UPTAKE_NAMES
from flarekit.core.errors import OutputError
from flarekit.core.files import write_atomically
from flarekit.core.records import Flag, LabelStatistics
from flarekit.core.volume import Geometry

STATISTICS = "statistics.csv"
HEADER = (
    "case,label,value,volume_ml,channel,mean,sd,suv_mean,suv_sd,components,"
    "x_min,y_min,z_min,x_max,y_max,z_max,x_mm_ras,y_mm_ras,z_mm_ras,touches_edge,flags\n"
)
_COLUMNS = HEADER.strip().split(",")
_VALUES = 256  # that a mask may have
_Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def label_volumes(
    label_map_ZYX: NDArray[np.uint8], labels: Mapping[str, int], voxel_ml: float
) -> dict[str, float]:
    """Return the volume of every label, in ml; 0 where nothing was found."""
    counts = np.zeros(_VALUES, np.int64)
    for slice_YX in label_map_ZYX:  # a count takes eight bytes per voxel
        flat = slice_YX.ravel()
        eights = flat[: len(flat) // 8 * 8]
        filled = eights.reshape(-1, 8)[eights.view(np.uint64) != 0]  # most hold background alone
        for voxels in (filled.ravel(), flat[len(eights) :]):
            counts += np.bincount(voxels, minlength=_VALUES)
    return {name: float(counts[value] * voxel_ml) for name, value in labels.items()}


def label_statistics(
    label_map_ZYX: NDArray[np.uint8],
    geometry: Geometry,
    labels: Mapping[str, int],
    channels: Mapping[str, NDArray[np.generic]],
) -> tuple[LabelStatistics, ...]:
    """Measure every label of a mask, those too of which nothing was found.

    Args:
        label_map_ZYX: uint8, as the scan is stored.
        geometry: of the scan.
        labels: label name -> value.
        channels: channel name -> (Z, Y, X) intensities on the same grid.

    Returns:
        One per label, in the order of `labels`.
    """
    box = box_of(label_map_ZYX)
    if box is None:
        return tuple(_nothing(name, value, channels) for name, value in labels.items())
    import cc3d

    inside = np.ascontiguousarray(label_map_ZYX[box])
    shapes = cc3d.statistics(inside)
    counts = shapes["voxel_counts"]
    components, second = _components(inside)
    moments = {name: _mean_and_sd(inside, voxels_ZYX[box]) for name, voxels_ZYX in channels.items()}
    corner_ZYX = np.array([part.start for part in box])
    voxel_ml = abs(float(np.linalg.det(geometry.affine[:3, :3]))) / 1000
    found = []
    for name, value in labels.items():
        if value >= len(counts) or not counts[value]:
            found.append(_nothing(name, value, channels))
            continue
        extent = shapes["bounding_boxes"][value]
        first = corner_ZYX + [part.start for part in extent]
        last = corner_ZYX + [part.stop - 1 for part in extent]
        centre_XYZ = (shapes["centroids"][value] + corner_ZYX)[::-1]
        place = geometry.affine @ (*centre_XYZ, 1.0)
        ends = np.array(label_map_ZYX.shape) - 1
        found.append(
            LabelStatistics(
                label=name,
                value=value,
                voxels=int(counts[value]),
                volume_ml=float(counts[value] * voxel_ml),
                intensities={
                    channel: (float(means[value]), float(sds[value]))
                    for channel, (means, sds) in moments.items()
                },
                components=int(components[value]),
                first_voxel_xyz=(int(first[2]), int(first[1]), int(first[0])),
                last_voxel_xyz=(int(last[2]), int(last[1]), int(last[0])),
                centroid_mm_ras=(float(place[0]), float(place[1]), float(place[2])),
                touches_edge=bool((first == 0).any() or (last == ends).any()),
                second_part=float(second[value] / counts[value]),
            )
        )
    return tuple(found)


def _nothing(name: str, value: int, channels: Iterable[str]) -> LabelStatistics:
    return LabelStatistics(label=name, value=value, intensities=dict.fromkeys(channels))


def _components(label_map_ZYX: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many 26-connected components each value has, and voxels of its second largest."""
    import cc3d

    numbered, count = cc3d.connected_components(label_map_ZYX, connectivity=26, return_N=True)
    values = np.zeros(int(count) + 1, np.uint8)
    values[numbered.ravel()] = label_map_ZYX.ravel()
    sizes = np.bincount(numbered.ravel(), minlength=int(count) + 1)
    second = np.zeros(_VALUES, np.int64)
    for value in np.unique(values[1:]):
        own = np.sort(sizes[1:][values[1:] == value])
        second[value] = own[-2] if len(own) > 1 else 0
    return np.bincount(values[1:], minlength=_VALUES), second


def _mean_and_sd(label_map_ZYX: NDArray[np.uint8], voxels_ZYX: NDArray[np.generic]) -> _Moments:
    """Return mean and standard deviation of the intensities under each value, in one pass.

    Both are taken from sums about one voxel of the foreground, lest large offsets cancel.
    """
    offset = float(voxels_ZYX[np.unravel_index(label_map_ZYX.argmax(), label_map_ZYX.shape)])
    count, total, squares = (np.zeros(_VALUES) for _ in range(3))
    for labels_YX, slice_YX in zip(label_map_ZYX, voxels_ZYX, strict=True):
        labelled = labels_YX != 0
        values = labels_YX[labelled]
        above = slice_YX[labelled].astype(np.float64) - offset
        count += np.bincount(values, minlength=_VALUES)
        total += np.bincount(values, above, _VALUES)
        squares += np.bincount(values, above * above, _VALUES)
    mean = total / np.maximum(count, 1)
    variance = squares / np.maximum(count, 1) - mean**2
    return mean + offset, np.sqrt(np.maximum(variance, 0))


class StatisticsTable:
    """The table of one run, which grows with every case."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        """Begin a table without cases; what another run left there is replaced.

        Args:
            path: of the file; its folder exists.
            keep: the lines of an earlier run, where it has the same columns.

        Raises:
            OutputError: it cannot be written.
        """
        self._path = path
        write_rows(path, read_rows(path) if keep else [])

    def drop(self, case_ids: Container[str]) -> None:
        """Take out the lines of some cases.

        Raises:
            OutputError: it cannot be written.
        """
        write_rows(self._path, [row for row in read_rows(self._path) if row[0] not in case_ids])

    def add(
        self, case_id: str, statistics: Iterable[LabelStatistics], flags: Sequence[Flag] = ()
    ) -> None:
        """Add the lines of a case, with the kinds of flags that its labels have.

        Raises:
            OSError: they cannot be written.
        """
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(_lines(_row(case_id, each, flags) for each in statistics))


def read_rows(path: Path) -> list[list[str]]:
    """Return the lines of a table that are whole, case ids first; none where it is no such table.

    Raises:
        OutputError: it cannot be read.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="", errors="replace") as stream:
            head, *rows = [*csv.reader(stream)] or [[]]
    except (OSError, csv.Error) as error:
        raise OutputError(
            f"{path}: cannot be read: {error}", fix="move it away; it is written anew"
        ) from error
    return [row for row in rows if len(row) == len(_COLUMNS)] if head == _COLUMNS else []


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a table of lines that are there, all at once.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, _lines([_COLUMNS, *rows]).encode())


def _row(case_id: str, each: LabelStatistics, flags: Sequence[Flag]) -> list[str]:
    channel, measured = next(iter(each.intensities.items()), ("", None))
    uptakes = (each.intensities[name] for name in each.intensities if name.upper() in UPTAKE_NAMES)
    kinds = dict.fromkeys(flag.kind for flag in flags if flag.label in (None, each.label))
    places = (each.first_voxel_xyz, each.last_voxel_xyz, each.centroid_mm_ras)
    return [
        case_id,
        each.label,
        str(each.value),
        f"{each.volume_ml:.6g}",
        channel,
        *_numbers(measured, 2),
        *_numbers(next(uptakes, None), 2),
        str(each.components),
        *(text for place in places for text in _numbers(place, 3)),
        "yes" if each.touches_edge else "no",
        " ".join(kinds),
    ]


def _numbers(values: tuple[float, ...] | None, count: int) -> list[str]:
    return [""] * count if values is None else [f"{value:.7g}" for value in values]


def _lines(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
