"""The outlines of a mask's slice as polygons along the edges of its pixels.

A polygon goes round one part of the mask whose pixels share edges. Its holes are cut out by the
keyhole technique (DICOM PS3.3, C.8.8.6.3): a channel without width leads to each and back.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_Polygon = NDArray[np.float64]  # (N, 2), x and y; a pixel's centre has whole numbers
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up
_CHANNEL = 0.25  # of a pixel, below the corner where a channel leaves: it crosses no other corner


def outlines_of(mask_YX: NDArray[np.bool_]) -> list[_Polygon]:
    """Return the outlines of a slice; none where nothing is in it.

    Args:
        mask_YX: bool.

    Returns:
        A polygon per part, (N, 2) in pixels, x then y; the last point is joined to the first.
    """
    if not mask_YX.any():
        return []
    from scipy.ndimage import label

    parts, count = label(mask_YX)
    outer: list[_Polygon] = [np.empty((0, 2))] * count
    holes: list[list[_Polygon]] = [[] for _ in range(count)]
    for polygon, pixel in _loops(mask_YX):
        number = int(parts[pixel]) - 1
        if _area(polygon) > 0:
            outer[number] = polygon
        else:
            holes[number].append(polygon)
    return [_with_holes(polygon, inner) - 0.5 for polygon, inner in zip(outer, holes, strict=True)]


def _loops(mask_YX: NDArray[np.bool_]) -> Iterator[tuple[_Polygon, tuple[int, int]]]:
    """Yield each closed line with the mask on its right (y goes down), and a pixel beside it.

    Where two pixels touch by a corner the line turns to the right, so that they stay apart.
    """
    padded = np.pad(mask_YX, 1)
    inside, width = padded[1:-1, 1:-1], mask_YX.shape[1] + 1
    edges = np.zeros((4, mask_YX.shape[0] + 1, width), np.bool_)  # by their first corner
    edges[0, :-1, :-1] = inside & ~padded[:-2, 1:-1]
    edges[1, :-1, 1:] = inside & ~padded[1:-1, 2:]
    edges[2, 1:, 1:] = inside & ~padded[2:, 1:-1]
    edges[3, 1:, :-1] = inside & ~padded[1:-1, :-2]
    left = [bytearray(edges[way].ravel().tobytes()) for way in range(4)]
    moves = [x + y * width for x, y in _STEPS]
    for start in np.flatnonzero(edges[0]):
        if not left[0][start]:
            continue
        corners, at, way = [int(start)], int(start), 0
        while left[way][at]:
            left[way][at] = 0
            at += moves[way]
            turned = next(
                (new for new in ((way + 1) % 4, way, (way + 3) % 4) if left[new][at]), way
            )
            if turned != way:
                corners.append(at)
            way = turned
        if corners[-1] == corners[0]:
            corners.pop()
        y, x = np.divmod(np.array(corners), width)
        yield np.stack([x, y], axis=1).astype(np.float64), (int(start) // width, int(start) % width)


def _area(polygon: _Polygon) -> float:
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _with_holes(polygon: _Polygon, holes: list[_Polygon]) -> _Polygon:
    """Return one polygon that goes round a part and, by channels, round each of its holes.

    From the leftmost edge of each hole a channel leads left to the nearest edge; the holes are
    taken from left to right, so that nothing but the polygon so far is in its way.
    """
    for hole in sorted(holes, key=lambda each: float(each[:, 0].min())):
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])  # leftmost, and of these the highest
        x, y = hole[start, 0], hole[start, 1] + _CHANNEL
        nexts = np.roll(polygon, -1, axis=0)
        low, high = np.minimum(polygon[:, 1], nexts[:, 1]), np.maximum(polygon[:, 1], nexts[:, 1])
        is_edge = (polygon[:, 0] == nexts[:, 0]) & (low < y) & (y < high) & (polygon[:, 0] < x)
        candidates = np.flatnonzero(is_edge)
        edge = int(candidates[polygon[candidates, 0].argmax()])
        entry = np.array([[polygon[edge, 0], y]])
        ordered = np.roll(hole, -start, axis=0)
        if ordered[1, 0] == x:  # the line goes down the leftmost edge: it is met within it
            ordered = np.roll(ordered, -1, axis=0)
        inner = np.concatenate([[[x, y]], ordered, [[x, y]]])
        polygon = np.concatenate([polygon[: edge + 1], entry, inner, entry, polygon[edge + 1 :]])
    return polygon
