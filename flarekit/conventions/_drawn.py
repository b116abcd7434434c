"""Marks that somebody made, drawn as channels in the way that a network was trained with."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import Drawn
from flarekit.core.errors import PredictorError

_FURTHEST = 12.0  # scales, from which on exp(-d / scale) is taken for 0


def encoding_of(stated: Drawn | None, drawn: Mapping[str, Drawn], usual: Drawn) -> Drawn:
    """Return how marks are drawn, as the network was trained with.

    Args:
        stated: what the settings of the convention say; None where they do not.
        drawn: channel -> how it was drawn in training, of channels that say so.
        usual: where nothing says anything.

    Raises:
        PredictorError: the settings say something else than the channels, or these differ.
    """
    for name, own in drawn.items():
        wanted = stated or next(iter(drawn.values()))
        if own != wanted:
            raise PredictorError(
                f"marks are drawn as {wanted}, and the channel {name!r} was trained with {own}",
                fix="make the settings of the convention and the channels agree",
            )
    return stated or next(iter(drawn.values()), usual)


def draw(
    places_ZYX: NDArray[np.int64],
    shape_ZYX: tuple[int, int, int],
    spacing_mm_ZYX: tuple[float, float, float],
    encoding: Drawn,
) -> NDArray[np.float32]:
    """Draw marks as a channel.

    A Gaussian equals `scipy.ndimage.gaussian_filter` of a volume that is 1 in every marked voxel,
    which reflects at the volume's faces; only the surroundings of the marks are computed.

    Args:
        places_ZYX: (N, 3) indices inside the volume; the same voxel counts once.
        shape_ZYX: of the result.
        spacing_mm_ZYX: distance between neighbouring voxels.
        encoding: how.
    """
    places = np.unique(places_ZYX, axis=0)
    drawn = np.zeros(shape_ZYX, np.float32)
    if not len(places):
        return drawn
    z, y, x = (1.0, 1.0, 1.0) if encoding.unit == "voxels" else spacing_mm_ZYX
    if encoding.kind == "point":
        drawn[tuple(places.T)] = 1
    elif encoding.kind == "gaussian":
        _add_gaussians(drawn, places, (encoding.scale / z, encoding.scale / y, encoding.scale / x))
    else:
        _draw_exponential(drawn, places, encoding.scale, (z, y, x))
    return drawn


def _add_gaussians(
    drawn: NDArray[np.float32], places: NDArray[np.int64], sigmas: tuple[float, float, float]
) -> None:
    from scipy.ndimage import gaussian_filter1d

    profiles: dict[tuple[int, int], tuple[slice, NDArray[np.float64]]] = {}
    for place in places:
        parts = []
        for axis, (at, length) in enumerate(zip(place.tolist(), drawn.shape, strict=True)):
            if (axis, at) not in profiles:
                impulse = np.zeros(length)
                impulse[at] = 1
                profile = gaussian_filter1d(impulse, sigmas[axis])
                reach = np.flatnonzero(profile)
                where = slice(int(reach[0]), int(reach[-1]) + 1)
                profiles[axis, at] = where, profile[where]
            parts.append(profiles[axis, at])
        (z, of_z), (y, of_y), (x, of_x) = parts
        drawn[z, y, x] += of_z[:, None, None] * of_y[:, None] * of_x


def _draw_exponential(
    drawn: NDArray[np.float32],
    places: NDArray[np.int64],
    scale: float,
    spacing: tuple[float, float, float],
) -> None:
    """Fill the box around all marks, as far as they count."""
    from scipy.ndimage import distance_transform_edt

    reach = [int(np.ceil(_FURTHEST * scale / step)) for step in spacing]
    low = np.maximum(0, places.min(axis=0) - reach)
    high = np.minimum(drawn.shape, places.max(axis=0) + reach + 1)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    unmarked = np.ones(high - low, np.bool_)
    unmarked[tuple((places - low).T)] = False
    far = distance_transform_edt(unmarked, sampling=spacing)
    drawn[box] = np.where(far <= _FURTHEST * scale, np.exp(-far / scale), 0.0)
