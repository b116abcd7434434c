"""The trunk around the organs: skin, fat, muscles, bones, lungs, heart; the cavity they leave."""

import numpy as np

from flarekit.phantom.geometry import F32, Frame, ellipsoid, smooth_field, smooth_max
from flarekit.phantom.scene import ANATOMY, FAT_HU, MUSCLE_HU

SPINE_RADII_MM = (23.0, 17.0)
_ROUND = 2.3  # power of an elliptic cylinder: 2 would be an ellipse, more is nearer to a box
LEVEL_MM = 34.0  # from one vertebra to the next


def ring_depth(frame: Frame, centre_y: float, half_x: float, half_y: float) -> F32:
    """Distance to an elliptic cylinder along the body, radially measured."""
    x, y = np.abs(frame.x_ZYX), np.abs(frame.y_ZYX - centre_y)
    value = ((x / half_x) ** _ROUND + (y / half_y) ** _ROUND) ** np.float32(1 / _ROUND)
    radius = np.sqrt(x * x + y * y)
    depth: F32 = np.where(
        radius < 20.0, np.float32(20.0 - half_y), (value - 1.0) * radius / np.maximum(value, 0.05)
    )
    return depth


def spine_y(z_ZYX: F32) -> F32:
    """Where the vertebral bodies' middle lies: lumbar lordosis below, thoracic kyphosis above."""
    lordosis, kyphosis = np.clip(z_ZYX, None, 0), np.clip(z_ZYX, 0, None)
    middle: F32 = 47.0 + 0.0007 * kyphosis**2 - 0.0002 * lordosis**2
    return middle


def behind_spine_y(frame: Frame) -> F32:
    """The furthest back lungs and organs reach: level with the vertebrae, more at the sides."""
    aside: F32 = np.maximum(np.abs(frame.x_ZYX) - 33.0, 0.0)
    return spine_y(frame.z_ZYX) + 12.0 + 1.1 * aside


def diaphragm_height(frame: Frame, rng: np.random.Generator) -> F32:
    """Height (mm) above the diaphragm: a right dome, a lower left one, the tendon between."""
    x, y, z = frame.x_ZYX, frame.y_ZYX, frame.z_ZYX
    lift = rng.uniform(-6.0, 8.0, 3).tolist()
    height = np.full(x.shape, -200.0, np.float32)
    domes = (
        (88.0 + lift[0], -62.0, -8.0, 82.0, 92.0),
        (73.0 + lift[1], 66.0, -4.0, 80.0, 92.0),
        (66.0 + lift[2], 5.0, -30.0, 70.0, 80.0),
    )
    for top, cx, cy, ax, ay in domes:
        dome = top - 86.0 * (((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2)
        height = smooth_max(height, dome, 12.0)
    above: F32 = z - height
    return above


def spine_hu(frame: Frame, hu_ZYX: F32, rng: np.random.Generator) -> F32:
    """Paints vertebrae, discs, canal and processes; returns the distance to the column."""
    x, z = frame.x_ZYX, frame.z_ZYX
    y = frame.y_ZYX - spine_y(z)
    marrow = rng.uniform(130.0, 230.0)
    level = np.mod(z + rng.uniform(0.0, LEVEL_MM), LEVEL_MM) - LEVEL_MM / 2
    waist = 1.0 + 0.1 * (level / (LEVEL_MM / 2)) ** 2
    radius = np.sqrt((x / SPINE_RADII_MM[0]) ** 2 + (y / SPINE_RADII_MM[1]) ** 2) / waist
    column = (radius - 1.0) * 19.0
    body = column < 0
    disc = np.abs(level) > LEVEL_MM / 2 - 4.0
    rim = (column > -2.2) | (np.abs(level) > LEVEL_MM / 2 - 6.0)
    texture = smooth_field(rng, frame.shape, frame.spacing_mm_ZYX, 5.0)
    bone = np.where(rim, marrow + 170.0, marrow + 25.0 * texture)
    hu_ZYX[body] = np.where(disc, 85.0, bone)[body]

    arch = np.sqrt((x / 14.5) ** 2 + ((y - 23.0) / 13.0) ** 2)
    half = np.abs(level - 2.0) < 11.0
    neural = (arch < 1.0) & (half | (np.abs(x) > 6.0)) & (y > 8.0)
    transverse = (
        (np.abs(y - 19.0 - 0.1 * np.abs(x)) < 4.2) & (np.abs(x) < 34.0) & (np.abs(level) < 6.5)
    )
    spinous = (
        (np.abs(x) < 3.4) & (y > 30.0) & (y < 53.0) & (np.abs(level + 4.0 - 0.15 * (y - 30)) < 10.0)
    )
    posterior = (neural | transverse | spinous) & ~body
    hu_ZYX[posterior] = marrow + 150.0
    canal = ((x / 9.5) ** 2 + ((y - 23.5) / 7.5) ** 2) < 1.0
    hu_ZYX[canal & ~body] = 18.0
    cord = ((x / 5.0) ** 2 + ((y - 23.5) / 4.0) ** 2) < 1.0
    hu_ZYX[cord & ~body] = 42.0
    distance: F32 = column
    return distance


def paint_ribs(frame: Frame, hu_ZYX: F32, chest_mm: F32, rng: np.random.Generator) -> None:
    """Ribs: arcs in the chest wall sloping down from the spine to the front; cartilage ends."""
    turn = np.arctan2(np.abs(frame.x_ZYX), frame.y_ZYX + 4.0) / np.float32(
        np.pi
    )  # 0 at the back, 1 in front
    sunk = frame.z_ZYX + 95.0 * turn**1.15 + rng.uniform(-4.0, 4.0)
    shell = np.abs(chest_mm - 5.0)
    for rib, end in ANATOMY["ribs"]:
        start = 30.0 + (12 - rib) * 25.0
        section = (shell / 4.2) ** 2 + ((sunk - start) / 7.0) ** 2
        inside = (section < 1.0) & (turn > 0.13) & (turn < end)
        hu_ZYX[inside] = np.where(section < 0.3, 230.0, 520.0)[inside]
        gristle = (section < 0.9) & (turn >= end) & (turn < min(end + 0.12, 0.97)) & (rib < 11)
        hu_ZYX[gristle] = 105.0


def paint_lungs(
    frame: Frame, hu_ZYX: F32, chest_mm: F32, above_mm: F32, rng: np.random.Generator
) -> None:
    """Lungs with vessels, the mediastinum's fat and the diaphragm with its crura."""
    x, y, z = frame.x_ZYX, frame.y_ZYX, frame.z_ZYX
    middle = np.sqrt(((x - 4.0) / 27.0) ** 2 + ((y - 22.0) / 46.0) ** 2)
    column = np.sqrt((x / 27.0) ** 2 + ((y - spine_y(z)) / 22.0) ** 2)
    chest = (chest_mm < -1.0) & (column > 1.0) & (y < behind_spine_y(frame))
    vessels = smooth_field(rng, frame.shape, frame.spacing_mm_ZYX, 7.0)
    lung_hu = rng.uniform(-870.0, -820.0) + 25.0 * smooth_field(
        rng, frame.shape, frame.spacing_mm_ZYX, 45.0
    )
    lung_hu += np.where(vessels > 2.2, np.float32(650.0), 15.0 * vessels)
    lung = chest & (above_mm > 1.5) & (middle > 1.0)
    hu_ZYX[lung] = lung_hu[lung]
    hu_ZYX[chest & (above_mm > 0) & (middle <= 1.0)] = FAT_HU + 20.0
    crus = (np.abs(column - 1.0) < 0.16) & (y < spine_y(z) + 4.0) & (z > -50.0) & (chest_mm < -1.0)
    hu_ZYX[(chest & (np.abs(above_mm + 1.2) < 2.6)) | (crus & (above_mm < 1.7))] = 52.0


def paint_heart(frame: Frame, hu_ZYX: F32, chest_mm: F32, above_mm: F32, blood_hu: float) -> None:
    """The lower part of the heart on the diaphragm: myocardium, septum, blood, a rim of fat."""
    heart = ellipsoid(frame, (20.0, -36.0, 116.0), (62.0, 44.0, 52.0), (0.0, 20.0, 25.0))
    depth = smooth_max(heart.depth_mm, 2.0 - above_mm[heart.box], 5.0)
    depth = smooth_max(depth, chest_mm[heart.box] + 5.0, 5.0)
    canvas = hu_ZYX[heart.box]
    canvas[depth < 3.0] = FAT_HU
    canvas[depth < 0.0] = 45.0 + 0.4 * (blood_hu - 45.0)
    septum = np.abs(frame.x_ZYX[heart.box] + 0.5 * frame.y_ZYX[heart.box] - 4.0)
    canvas[(depth < -8.0) & (septum > 4.5)] = blood_hu


def back_muscles(frame: Frame, hu_ZYX: F32) -> F32:
    """Paints erector spinae, quadratus lumborum and psoas; returns the distance to them."""
    x, y, z = np.abs(frame.x_ZYX), frame.y_ZYX, frame.z_ZYX
    drop = np.clip(-(z - 5.0) / 120.0, 0.0, 1.3)
    erector = (
        np.sqrt(((x - 31.0) / 28.0) ** 2 + ((y - spine_y(z) - 33.0) / 18.0) ** 2) - 1.0
    ) * 20.0
    psoas_radius = 2.0 + 18.0 * np.sqrt(drop)
    psoas = np.hypot((x - 27.0 - 15.0 * drop) * 1.1, (y - 48.0 + 10.0 * drop) * 0.9) - psoas_radius
    psoas = np.where(drop > 0, psoas, np.float32(50.0))
    lumborum = (np.sqrt(((x - 68.0) / 18.0) ** 2 + ((y - 76.0) / 8.0) ** 2) - 1.0) * 9.0
    lumborum = np.maximum(lumborum, z * 0.6 + 10.0)
    for muscle, streaks in ((erector, 1.0), (psoas, 0.3), (lumborum, 0.3)):
        inside = muscle < 0
        hu_ZYX[inside] = (MUSCLE_HU + 5.0 * streaks * np.sin(x * 0.6) * np.sin(y * 0.5))[inside]
    nearest: F32 = np.minimum(np.minimum(erector, psoas), lumborum)
    return nearest


def make_trunk(
    frame: Frame, rng: np.random.Generator, fat_mm: float, blood_hu: float
) -> tuple[F32, F32, F32, F32]:
    """Paints the trunk with `fat_mm` of subcutaneous fat and finds the abdominal cavity.

    Returns:
        HU, and the distances (mm, negative inside) to body, cavity and the space below the
        diaphragm, all (Z, Y, X).
    """
    x, y = frame.x_ZYX, frame.y_ZYX
    outer = ring_depth(frame, 0.0, 146.0 + fat_mm, 101.0 + 0.8 * fat_mm)
    outer += 7.0 * np.exp(-((x / 16.0) ** 2)) * (y > 50)  # the furrow over the spine
    muscle = ring_depth(frame, 0.0, 146.0, 101.0)
    chest = ring_depth(frame, -6.0, 133.0, 85.0)
    hu = np.full(frame.shape, -1000.0, np.float32)
    hu[outer < 0] = 30.0
    subcutaneous = outer < -2.2
    strands = smooth_field(rng, frame.shape, frame.spacing_mm_ZYX, 9.0)
    hu[subcutaneous] = (FAT_HU - 4.0 + 8.0 * np.clip(strands, -1, 3))[subcutaneous]
    wall = (muscle < 0) & subcutaneous
    hu[wall] = MUSCLE_HU - 3.0 + 8.0 * strands[wall]
    layers = wall & (np.abs(np.mod(muscle, 5.5) - 2.7) < 0.6) & (np.abs(x) > 50) & (muscle > -13)
    hu[layers] = -30.0
    thin = np.minimum(np.abs(x), np.abs(np.abs(x) - 52.0)) < 3.0  # linea alba and semilunaris
    hu[wall & (thin | (muscle > -4.0)) & (y < -30)] = FAT_HU + 20.0
    inside = chest < 0
    hu[inside] = (FAT_HU + 4.0 * strands)[inside]

    above = diaphragm_height(frame, rng)
    muscles = back_muscles(frame, hu)
    paint_lungs(frame, hu, chest, above, rng)
    paint_heart(frame, hu, chest, above, blood_hu)
    column = spine_hu(frame, hu, rng)
    paint_ribs(frame, hu, chest, rng)
    solid = np.minimum(np.minimum(column - 2.0, muscles - 1.0), behind_spine_y(frame) - y)
    cavity = smooth_max(chest, -solid, 4.0)
    return hu, outer, cavity, above
