"""Liver with vessels and lesions, gallbladder, spleen."""

import numpy as np

from flarekit.phantom.geometry import F32, Frame, Point, Solid, ellipsoid, smooth_max, spline, tube
from flarekit.phantom.scene import ANATOMY, GALLBLADDER, LIVER, SPLEEN, Scene, shifted, with_depth


def below_liver(frame: Frame, reach: float) -> F32:
    """Height (mm) of the lower surface: a deep right lobe, a left lobe thinning to the left."""
    x, y = frame.x_ZYX, frame.y_ZYX
    low = np.interp(
        x, [-140, -110, -85, -55, -25, 0, 40, 80, 110], [-70, -66, -46, -8, 6, 8, 20, 42, 75]
    )
    low = low.astype(np.float32) + 0.0045 * np.clip(y + 20.0, 0, None) ** 2
    low += 0.004 * np.clip(-y - 25.0, 0, None) ** 2
    surface: F32 = low - reach
    return surface


def paint_liver(scene: Scene) -> None:
    """What lies below the diaphragm, above a slanting lower surface, before the stomach."""
    rng, frame = scene.rng("liver"), scene.frame
    x, y, z = frame.x_ZYX, frame.y_ZYX, frame.z_ZYX
    end = rng.uniform(48.0, 88.0)  # how far the left lobe crosses to the left
    depth = smooth_max(
        below_liver(frame, rng.uniform(-4.0, 24.0)) - z, scene.cavity_mm_ZYX + 1.0, 8.0
    )
    depth = smooth_max(depth, scene.diaphragm_mm_ZYX + 2.2, 2.5)
    back = np.interp(x, [-140, -34, -24, -8, 20, 60, 100], [95, 90, 26, 16, -8, -34, -52]).astype(
        np.float32
    )
    depth = smooth_max(depth, (y - back) * 0.8, 7.0)
    depth = smooth_max(depth, (x - end) * 0.8, 14.0)
    fissure = 5.0 - np.hypot(
        x - 2.0, 0.5 * np.clip(y + 62.0, 0, None) + 0.12 * np.clip(z - 8.0, 0, None)
    )
    depth = smooth_max(depth, fissure, 4.0)
    box = frame.box((-150.0, -110.0, -95.0), (110.0, 90.0, 110.0))
    liver = Solid(box=box, depth_mm=depth[box])
    hu = scene.tissue_hu["liver"] + 3.0 * scene.field("liver texture", box, 9.0)
    scene.paint(liver, hu.astype(np.float32), LIVER)
    paint_liver_vessels(scene)
    paint_lesions(scene)


def paint_liver_vessels(scene: Scene) -> None:
    """Portal and hepatic veins; they keep the liver's label."""
    for tissue, tree in ANATOMY["trees"].items():
        value = scene.tissue_hu[tissue]
        if tissue == "vein" and value > scene.tissue_hu["liver"]:
            value += 15.0
        for index, branch in enumerate(tree):
            rng = scene.rng(f"{tissue} branch {index}")
            points = [branch[0]]
            points += [
                (*shifted(rng, (p[0], p[1], p[2]), 4.0), p[3] * rng.uniform(0.8, 1.1))
                for p in branch[1:]
            ]
            scene.paint(tube(scene.frame, spline(points, 2.0)), float(value), only=(LIVER,))


def paint_lesions(scene: Scene) -> None:
    """Cysts and hypodense metastases in about a third of the livers."""
    rng = scene.rng("liver lesions")
    if rng.random() > 0.35:
        return
    for index in range(int(rng.integers(1, 5))):
        centre: Point = (rng.uniform(-110, -30), rng.uniform(-60, 45), rng.uniform(-20, 65))
        radius = rng.uniform(4.0, 18.0)
        lesion = ellipsoid(
            scene.frame, centre, (radius, radius * rng.uniform(0.8, 1.2), radius * 0.9)
        )
        rough = 0.12 * radius * scene.field(f"lesion {index}", lesion.box, 8.0)
        if rng.random() < 0.4:
            scene.paint(lesion, rng.uniform(2.0, 18.0), only=(LIVER,))
            continue
        ragged = with_depth(lesion, lesion.depth_mm + rough)
        core = scene.tissue_hu["liver"] - rng.uniform(25.0, 55.0)
        edge = np.clip(1.0 + ragged.depth_mm / 5.0, 0.0, 1.0)
        scene.paint(ragged, (core + 22.0 * edge).astype(np.float32), only=(LIVER,))


def paint_gallbladder(scene: Scene) -> None:
    """A pear under the liver, absent in one patient of ten, with a stone in one of eight."""
    rng = scene.rng("gallbladder")
    if rng.random() < 0.1:
        return
    swell = rng.uniform(0.8, 1.2)
    neck = shifted(rng, (-44.0, -30.0, -10.0), 3.0)
    fundus = shifted(rng, (-64.0, -52.0, -36.0), 5.0)
    x, y, z = (0.45 * one + 0.55 * other for one, other in zip(neck, fundus, strict=True))
    pear = tube(
        scene.frame, spline([(*neck, 4.5), (x, y, z, 13.0 * swell), (*fundus, 14.5 * swell)], 2.0)
    )
    bladder = scene.confined(pear, gap_mm=3.0)
    bile = rng.uniform(2.0, 20.0)
    hu = np.where(bladder.depth_mm < -1.6, bile, 45.0).astype(np.float32)
    inside = scene.paint(bladder, hu, GALLBLADDER, halo_mm=0.6)
    if rng.random() < 0.13 and inside.any():
        size = rng.uniform(3.0, 7.0)
        stone = ellipsoid(scene.frame, (fundus[0], fundus[1] + 6.0, fundus[2]), (size, size, size))
        scene.paint(stone, rng.uniform(80.0, 600.0), only=(GALLBLADDER,))


def paint_spleen(scene: Scene) -> None:
    """A crescent between diaphragm, stomach and left kidney."""
    rng = scene.rng("spleen")
    size = rng.uniform(0.92, 1.28)
    centre = shifted(rng, (102.0, 32.0, 28.0), 4.0)
    solid = ellipsoid(
        scene.frame, centre, (38.0 * size, 60.0 * size, 54.0 * size), (-28.0, 8.0, 24.0)
    )
    hollow = ellipsoid(
        scene.frame,
        (centre[0] - 50.0, centre[1] - 26.0, centre[2] - 4.0),
        (40.0, 40.0, 70.0),
        margin=60.0,
    )
    depth = solid.depth_mm
    carve = np.full(scene.frame.shape, 50.0, np.float32)
    carve[hollow.box] = hollow.depth_mm
    crescent = scene.confined(
        with_depth(solid, smooth_max(depth, -carve[solid.box], 7.0)), gap_mm=0.0, edge_mm=4.0
    )
    hu = scene.tissue_hu["spleen"] + 2.0 * scene.field("spleen texture", solid.box, 8.0)
    if scene.tissue_hu["aorta"] > 220.0:  # the arterial phase enhances the pulp in stripes
        hu += (
            16.0
            * np.sin(solid.depth_mm * 0.8)
            * np.clip(scene.field("stripes", solid.box, 18.0), -1, 1)
        )
    scene.paint(crescent, hu.astype(np.float32), SPLEEN, halo_mm=1.0)
