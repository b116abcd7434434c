"""Body coordinates in mm, and the solids drawn in them: ellipsoids, tubes and sheets.

Body coordinates: x grows to the patient's left, y to posterior, z to superior; the origin lies at
the level of the first lumbar vertebra in the middle of the trunk. They are those of a reference
adult; size and shape of one phantom come from the `Frame`, which maps voxels to them with a scale
per axis and a smooth random warp.

Axis letters: Z, Y, X voxels; N points of a tube; 3 is always (x, y, z).
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]
Box: TypeAlias = tuple[slice, slice, slice]
Point: TypeAlias = tuple[float, float, float]
Knot: TypeAlias = tuple[float, float, float, float]  # of a tube: x, y, z, radius

FAR_MM = 1e3


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Body coordinates of every voxel."""

    x_ZYX: F32
    y_ZYX: F32
    z_ZYX: F32
    spacing_mm_ZYX: Point
    centre_mm_ZYX: Point  # of the body origin, from the first voxel
    scale_ZYX: Point
    reach_mm: float  # the warp moves no voxel further than this

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X."""
        depth, height, width = self.x_ZYX.shape
        return depth, height, width

    def box(self, low: Point, high: Point) -> Box:
        """Voxels that can lie between two corners (x, y, z in body mm); may be empty."""
        slices = []
        for axis, size in enumerate(self.shape):
            start, stop = low[2 - axis] - self.reach_mm, high[2 - axis] + self.reach_mm
            scale, centre, step = (
                self.scale_ZYX[axis],
                self.centre_mm_ZYX[axis],
                self.spacing_mm_ZYX[axis],
            )
            first = min(max(math.floor((start * scale + centre) / step), 0), size)
            last = min(max(math.ceil((stop * scale + centre) / step) + 1, first), size)
            slices.append(slice(first, last))
        return slices[0], slices[1], slices[2]


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A shape as its signed distance in body mm (negative inside), known in a box of voxels."""

    box: Box
    depth_mm: F32


@dataclass(frozen=True, kw_only=True)
class Tube(Solid):
    """A tube that also knows, per voxel, how far above its axis it is."""

    rise: F32  # (axis y - y) / radius: 1 at the anterior wall, where gas collects


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Point, wavelength_mm: float
) -> F32:
    """Smooth unit noise: white noise on a coarse grid, interpolated by cubic B-splines."""
    knots = [
        int(np.ceil(size * step / wavelength_mm)) + 4
        for size, step in zip(shape, spacing_mm, strict=True)
    ]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, size in enumerate(shape):
        position = np.arange(size) * spacing_mm[axis] / wavelength_mm + 1.5
        offset = np.abs(position[:, None] - np.arange(knots[axis])[None, :])
        weights = np.where(
            offset < 1, 2 / 3 - offset**2 + offset**3 / 2, np.clip(2 - offset, 0, None) ** 3 / 6
        )
        weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
        field = np.moveaxis(
            np.tensordot(weights.astype(np.float32), field, axes=(1, axis)), 0, axis
        )
    smooth: F32 = np.ascontiguousarray(field)
    return smooth


def make_frame(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm_ZYX: Point,
    *,
    centre_mm_ZYX: Point,
    scale_ZYX: Point,
    warp_mm: float,
) -> Frame:
    """Warped body coordinates: broad deformation of `warp_mm` (one sigma) and a finer one."""
    limit = 2.5 * warp_mm
    coordinates = []
    for axis in range(3):
        line = (np.arange(shape[axis]) * spacing_mm_ZYX[axis] - centre_mm_ZYX[axis]) / scale_ZYX[
            axis
        ]
        along = [1, 1, 1]
        along[axis] = shape[axis]
        warp = smooth_field(rng, shape, spacing_mm_ZYX, 70.0) * warp_mm
        warp += smooth_field(rng, shape, spacing_mm_ZYX, 24.0) * (0.28 * warp_mm)
        np.clip(warp, -limit, limit, out=warp)
        coordinates.append(warp + line.astype(np.float32).reshape(along))
    return Frame(
        x_ZYX=coordinates[2],
        y_ZYX=coordinates[1],
        z_ZYX=coordinates[0],
        spacing_mm_ZYX=spacing_mm_ZYX,
        centre_mm_ZYX=centre_mm_ZYX,
        scale_ZYX=scale_ZYX,
        reach_mm=limit,
    )


def smooth_max(a: F32, b: F32, width_mm: float) -> F32:
    """The larger of two distances, the edge between them rounded over about `width_mm`."""
    larger: F32 = 0.5 * (a + b + np.sqrt((a - b) ** 2 + width_mm**2))
    return larger


def rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """Turn about x (roll), then y (pitch), then z (yaw), in degrees."""
    a, b, c = np.deg2rad([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turn: NDArray[np.float64] = about_z @ about_y @ about_x
    return turn


def turned(
    frame: Frame, box: Box, centre: Point, turn: NDArray[np.float64]
) -> tuple[F32, F32, F32]:
    """Coordinates of the voxels in `box` seen from `centre` along axes turned by `turn`."""
    x = frame.x_ZYX[box] - centre[0]
    y = frame.y_ZYX[box] - centre[1]
    z = frame.z_ZYX[box] - centre[2]
    u, v, w = ((x * float(c[0]) + y * float(c[1]) + z * float(c[2])) for c in turn.T)
    return u, v, w


def ellipsoid_depth(u: F32, v: F32, w: F32, radii: Point) -> F32:
    """Approximate signed distance to an ellipsoid (first-order: value over gradient)."""
    a, b, c = radii
    value = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
    slope = np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2 + (w / c**2) ** 2)
    outside: F32 = value * (value - 1.0) / np.maximum(slope, 1e-4)
    depth: F32 = np.where(value < 0.05, np.float32(-min(radii)), outside)
    return depth


def ellipsoid(
    frame: Frame,
    centre: Point,
    radii: Point,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
    margin: float = 8.0,
) -> Solid:
    """An ellipsoid with half axes `radii` mm, turned by (roll, pitch, yaw) degrees."""
    matrix = rotation(*turn)
    half = np.sqrt(((matrix * np.array(radii)) ** 2).sum(axis=1)) + margin
    low = (centre[0] - float(half[0]), centre[1] - float(half[1]), centre[2] - float(half[2]))
    high = (centre[0] + float(half[0]), centre[1] + float(half[1]), centre[2] + float(half[2]))
    box = frame.box(low, high)
    return Solid(box=box, depth_mm=ellipsoid_depth(*turned(frame, box, centre, matrix), radii))


def spline(points: list[Knot], step_mm: float) -> NDArray[np.float64]:
    """(x, y, z, radius) about every `step_mm` on a smooth curve through `points`; (N, 4)."""
    from scipy.interpolate import CubicSpline, PchipInterpolator

    knots = np.array(points, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1)
    chord = np.concatenate([[0.0], np.cumsum(np.maximum(lengths, 3.0))])
    count = max(2, int(np.ceil(chord[-1] / step_mm)) + 1)
    at = np.linspace(0.0, chord[-1], count)
    centres = CubicSpline(chord, knots[:, :3], bc_type="natural")(at)
    radii = PchipInterpolator(chord, knots[:, 3])(at)
    return np.column_stack([centres, radii])


def tube(
    frame: Frame,
    curve_N4: NDArray[np.float64],
    *,
    margin: float = 6.0,
    flat: tuple[float, float] = (1.0, 1.0),
) -> Tube:
    """The union of balls along a curve of (x, y, z, radius), stretched by `flat` along x and y."""
    reach = curve_N4[:, 3].max() * max(flat) + margin
    low, high = curve_N4[:, :3].min(axis=0) - reach, curve_N4[:, :3].max(axis=0) + reach
    box = frame.box(
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
    )
    x_all, y_all, z_all = frame.x_ZYX[box], frame.y_ZYX[box], frame.z_ZYX[box]
    depth = np.full(x_all.shape, FAR_MM, np.float32)
    rise = np.zeros_like(depth)
    for x, y, z, radius in curve_N4.tolist():
        pad = radius * max(flat) + margin
        ball = frame.box((x - pad, y - pad, z - pad), (x + pad, y + pad, z + pad))
        if any(part.start == part.stop for part in ball):
            continue
        near = tuple(
            slice(b.start - o.start, b.stop - o.start) for b, o in zip(ball, box, strict=True)
        )
        dx, dy, dz = x_all[near] - x, y_all[near] - y, z_all[near] - z
        distance = np.sqrt((dx / flat[0]) ** 2 + (dy / flat[1]) ** 2 + dz**2) - radius
        closer = distance < depth[near]
        depth[near] = np.where(closer, distance, depth[near])
        rise[near] = np.where(closer, -dy / (radius * flat[1]), rise[near])
    return Tube(box=box, depth_mm=depth, rise=rise)
