"""A picture of a segmented scan: three planes through the labels, in colour over grey."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.colours import colour_of
from flarekit.core.files import write_atomically
from flarekit.core.volume import Volume, orientation_of

WINDOW_HU = (-160.0, 240.0)
_OPACITY = 0.55
_SAGITTAL = 2  # the plane that shows neither side
_SIDES = {"R": (0.02, "left"), "L": (0.98, "right")}  # of the patient: where it stands
_MARK: dict[str, Any] = {"color": "white", "fontsize": 12, "fontweight": "bold"}


def write_picture(
    path: Path, volume: Volume, label_map_ZYX: NDArray[np.uint8], labels: Mapping[str, int]
) -> None:
    """Draw the axial, coronal and sagittal slice with most labelled voxels, as a PNG.

    Seen as radiologists see them: the patient's right, marked R, on the left, anterior or superior
    on top. A label has the colour of its value, in every picture.

    Args:
        path: the PNG to make.
        volume: the scan, as stored.
        label_map_ZYX: its mask, as stored.
        labels: label name -> value.

    Raises:
        OutputError: it could not be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    orientation = orientation_of(volume.geometry.affine)
    scan = orientation.apply(volume.voxels_ZYX)
    label_map = orientation.apply(label_map_ZYX)
    spacing_mm = orientation.apply_to_axes(volume.geometry.spacing_mm_ZYX)
    colours, (low, high) = shades_of(labels), WINDOW_HU
    figure = Figure(figsize=(13, 4.6), dpi=110, facecolor="black", layout="constrained")
    for axis, (axes, title) in enumerate(
        zip(figure.subplots(1, 3), ("axial", "coronal", "sagittal"), strict=True)
    ):
        index = fullest_slice(label_map, axis)
        grey = np.clip((scan.take(index, axis) - low) / (high - low), 0, 1)
        picture = painted(grey, label_map.take(index, axis), colours)
        show_slice(axes, picture, axis, spacing_mm)
        axes.set_title(title, color="white", fontsize=10)
    present = [name for name, value in labels.items() if (label_map == value).any()]
    handles = [Patch(color=colours[labels[name]], label=name.replace("_", " ")) for name in present]
    if handles:
        add_legend(figure, handles)
    save_figure(figure, path)


def show_slice(
    axes: Any,  # noqa: ANN401 - matplotlib is not imported here
    picture_YXC: NDArray[np.float32],
    axis: int,
    spacing_mm: tuple[float, float, float],
) -> None:
    """Show a slice in the size that it has, with the patient's right and left where it shows them.

    Args:
        axes: matplotlib's.
        picture_YXC: of a slice of an oriented volume.
        axis: across which it was cut: 0 axial, 1 coronal, 2 sagittal.
        spacing_mm: of the volume.
    """
    rows, columns = (other for other in range(3) if other != axis)
    axes.imshow(
        picture_YXC,
        origin="upper" if axis == 0 else "lower",
        interpolation="nearest",
        aspect=spacing_mm[rows] / spacing_mm[columns],
    )
    axes.set_axis_off()
    mark_sides(axes, axis)


def mark_sides(axes: Any, axis: int) -> None:  # noqa: ANN401
    """Mark the patient's right and left beside a slice that shows them; see `show_slice`."""
    if axis == _SAGITTAL:
        return
    for side, (x, align) in _SIDES.items():
        axes.text(x, 0.5, side, transform=axes.transAxes, ha=align, va="center", **_MARK)


def add_legend(figure: Any, handles: Sequence[Any]) -> None:  # noqa: ANN401
    """Name the colours to the right of a black figure."""
    figure.legend(
        handles=handles, loc="outside right center", fontsize=8, frameon=False, labelcolor="white"
    )


def save_figure(figure: Any, path: Path) -> None:  # noqa: ANN401
    """Write a figure as a PNG that is whole.

    Raises:
        OutputError: it could not be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def shades_of(labels: Mapping[str, int]) -> dict[int, tuple[float, float, float]]:
    """Return the colour of every label's value, red, green and blue from 0 to 1."""
    shades = {value: colour_of(value) for value in labels.values()}
    return {value: (r / 255, g / 255, b / 255) for value, (r, g, b) in shades.items()}


def colours_of(labels: Mapping[str, int]) -> dict[int, str]:
    """Return the colour of every label's value in pictures, as #rrggbb."""
    return {value: "#{:02x}{:02x}{:02x}".format(*colour_of(value)) for value in labels.values()}


def fullest_slice(label_map_ZYX: NDArray[np.uint8], axis: int) -> int:
    """Return the index along an axis with most labelled voxels; the middle where none is."""
    others = tuple(other for other in range(3) if other != axis)
    counts = (label_map_ZYX > 0).sum(axis=others)
    return int(counts.argmax()) if counts.any() else label_map_ZYX.shape[axis] // 2


def painted(
    grey_YX: NDArray[np.float32],
    label_map_YX: NDArray[np.uint8],
    colours: Mapping[int, tuple[float, float, float]],
) -> NDArray[np.float32]:
    """Return a slice in shades from 0 to 1 with its labels in colour over it, (Y, X, 3)."""
    picture = np.repeat(grey_YX[..., None], 3, axis=-1).astype(np.float32)
    for value, colour in colours.items():
        inside = label_map_YX == value
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * np.array(colour)
    return picture
