"""Behind the gut: kidneys, adrenals, pancreas, aorta, vena cava, the vessels between them."""

import numpy as np

from flarekit.phantom.geometry import (
    F32,
    Point,
    Solid,
    ellipsoid,
    ellipsoid_depth,
    rotation,
    smooth_max,
    spline,
    tube,
    turned,
)
from flarekit.phantom.scene import (
    ANATOMY,
    AORTA,
    FAT_HU,
    LIVER,
    PANCREAS,
    RIGHT_ADRENAL,
    RIGHT_KIDNEY,
    VENA_CAVA,
    Scene,
    course,
    shifted,
    with_depth,
)


def paint_kidney(scene: Scene, label: int) -> None:
    """A bean with cortex, pyramids and a fatty sinus open towards the middle; sometimes a cyst."""
    side = -1.0 if label == RIGHT_KIDNEY else 1.0
    rng = scene.rng(f"kidney {label}")
    size = rng.uniform(0.94, 1.14)
    centre = shifted(rng, (side * 68.0, 35.0, -34.0 if side < 0 else -22.0), 3.0)
    radii = (30.0 * size, 27.0 * size, 54.0 * size)
    turn = rotation(
        -12.0 + rng.normal(0, 3), side * rng.uniform(8.0, 16.0), side * rng.uniform(20.0, 36.0)
    )
    bean = ellipsoid(scene.frame, centre, radii, (0.0, 0.0, 0.0), margin=22.0)
    u, v, w = turned(scene.frame, bean.box, centre, turn)
    depth = ellipsoid_depth(u, v, w, radii) + 0.7 * scene.field(f"lobes {label}", bean.box, 16.0)
    medial = -side * u  # grows towards the spine
    sinus = ellipsoid_depth(medial - 19.0 * size, v, w, (19.0 * size, 8.0 * size, 24.0 * size))
    kidney = scene.confined(
        with_depth(bean, smooth_max(depth, -sinus, 4.0)), gap_mm=-1.0, edge_mm=3.0
    )

    swirl = np.cos(np.arctan2(v, medial - 12.0) * 4.0) * np.cos(w / 6.5)
    cortex = np.minimum(-depth, 30.0) < 7.0 + 4.0 * np.clip(swirl, -0.4, 1.0)
    hu = np.where(cortex, scene.tissue_hu["cortex"], scene.tissue_hu["medulla"]).astype(np.float32)
    scene.paint(with_depth(bean, depth), FAT_HU, 0, halo_mm=rng.uniform(2.0, 6.0))
    scene.paint(kidney, hu, label)
    pelvis = ellipsoid_depth(medial - 15.0 * size, v, w, (13.0 * size, 4.5, 15.0 * size))
    scene.paint(
        with_depth(bean, smooth_max(pelvis, -(kidney.depth_mm - 1.0), 1.0)),
        float(scene.tissue_hu["urine"]),
    )
    if rng.random() < 0.25:
        at = shifted(rng, (centre[0] + side * 20.0, centre[1] + 8.0, centre[2]), 9.0)
        radius = rng.uniform(5.0, 15.0)
        cyst = scene.confined(ellipsoid(scene.frame, at, (radius, radius, radius)))
        scene.paint(cyst, rng.uniform(0.0, 15.0), label, keep=(LIVER,))


def paint_adrenal(scene: Scene, label: int) -> None:
    """Two thin limbs that meet in a ridge: a Y lying on the upper pole of the kidney."""
    right = label == RIGHT_ADRENAL
    side = -1.0 if right else 1.0
    rng = scene.rng(f"adrenal {label}")
    centre: Point = shifted(rng, (-33.0, 27.0, 30.0) if right else (37.0, 22.0, 20.0), 1.5)
    ball = ellipsoid(scene.frame, centre, (24.0, 24.0, 22.0))
    turn = rotation(rng.normal(0, 6), rng.normal(0, 6), rng.normal(0, 8))
    u, v, w = turned(scene.frame, ball.box, centre, turn)
    u = u * side  # grows away from the spine
    fade = np.clip(1.0 - (w / 17.0) ** 2, 0.0, None)
    ends = ((0.0, -11.0), (-5.0 if right else -8.0, 13.0), (9.0, 13.0 if right else 10.0))
    sheet: F32 = np.full(u.shape, 50.0, np.float32)
    for end_u, end_v in ends:
        length = float(np.hypot(end_u, end_v))
        t = np.clip((u * end_u + v * end_v) / length**2, 0.0, 1.0)
        limb = np.hypot(u - t * end_u, v - t * end_v)
        sheet = np.minimum(sheet, limb + 1.2 * t)
    thickness = rng.uniform(2.9, 3.6)
    depth = (sheet - thickness * np.sqrt(fade)).astype(np.float32)
    gland = with_depth(ball, np.maximum(depth, np.abs(w) - 16.0).astype(np.float32))
    hu = np.full(u.shape, scene.tissue_hu["adrenal"], np.float32)
    scene.paint(gland, hu, label, halo_mm=2.0, keep=(AORTA, VENA_CAVA))


def paint_pancreas(scene: Scene) -> None:
    """Head in the duodenal C, body over vessels and aorta, tail at the spleen."""
    rng = scene.rng("pancreas")
    cord = tube(scene.frame, spline(course("pancreas", rng, rng.uniform(0.85, 1.12)), 2.0))
    lobules = scene.field("pancreas lobules", cord.box, 6.5)
    gland = scene.confined(
        Solid(box=cord.box, depth_mm=cord.depth_mm + 1.1 * lobules - np.float32(0.8)), edge_mm=3.0
    )
    hu = scene.tissue_hu["pancreas"] - rng.uniform(3.0, 16.0) * np.clip(
        scene.field("fatty", cord.box, 4.5), 0, 2
    )
    scene.paint(gland, hu.astype(np.float32), PANCREAS, halo_mm=0.8)
    splenic = course("splenic_vein", rng)
    scene.paint(tube(scene.frame, spline(splenic, 2.0)), float(scene.tissue_hu["portal"]), 0)


def paint_vena_cava(scene: Scene) -> None:
    """In front of the spine on its right, then through the back of the liver to the heart."""
    rng = scene.rng("vena cava")
    flat = (rng.uniform(1.0, 1.3), rng.uniform(0.75, 1.0))
    curve = spline(course("vena_cava", rng), 2.5)
    curve[:, 3] *= rng.uniform(0.85, 1.05)
    vein = tube(scene.frame, curve, flat=flat)
    mixing = 9.0 * scene.field("mixing", vein.box, 18.0)
    scene.paint(vein, (scene.tissue_hu["vein"] + mixing).astype(np.float32), VENA_CAVA)


def paint_aorta(scene: Scene) -> None:
    """On the left front of the spine, dividing below the fourth lumbar vertebra; some calcified."""
    rng = scene.rng("aorta")
    width = rng.uniform(0.82, 1.18)
    curve = spline(
        [
            (x + rng.normal(0, 1.2), y + rng.normal(0, 0.8), z, radius)
            for x, y, z, radius in course("aorta", rng, width)
        ],
        2.5,
    )
    vessel = tube(scene.frame, curve)
    hu = np.full(vessel.depth_mm.shape, scene.tissue_hu["aorta"], np.float32)
    if rng.random() < 0.4:
        plaque = (vessel.depth_mm > -1.8) & (
            scene.field("plaque", vessel.box, 8.0) > rng.uniform(1.3, 2.2)
        )
        hu[plaque] = rng.uniform(350.0, 700.0)
    for end in (-34.0, 36.0):
        iliac = tube(scene.frame, spline([(8.0, 16.0, -112.0, 6.5), (end, 26.0, -190.0, 6.0)], 2.5))
        scene.paint(iliac, float(scene.tissue_hu["aorta"]), 0)
    scene.paint(vessel, hu, AORTA, halo_mm=0.7, keep=(VENA_CAVA,))


def paint_branches(scene: Scene) -> None:
    """Unlabelled: celiac trunk, mesenteric vessels, portal vein, renal veins and arteries."""
    artery, portal = (float(scene.tissue_hu[name]) for name in ("aorta", "portal"))
    for branch in ANATOMY["branches"]:
        hu = float(scene.tissue_hu[branch["tissue"]])
        scene.paint(tube(scene.frame, spline(branch["course"], 2.0)), hu, 0, only=(0, PANCREAS))
    scene.paint(
        tube(scene.frame, spline([(-34.0, -13.0, 12.0, 6.5), (-42.0, -14.0, 18.0, 6.0)], 2.0)),
        portal,
    )
    paint_mesentery(scene, artery, portal)


def paint_mesentery(scene: Scene, artery_hu: float, vein_hu: float) -> None:
    """Thin vessels that fan out from the mesenteric root, through fat only."""
    rng = scene.rng("mesentery")
    for index in range(18):
        root = (5.0, -18.0, rng.uniform(-75.0, -25.0))
        tip = (rng.uniform(-70.0, 85.0), rng.uniform(-55.0, -5.0), root[2] - rng.uniform(0.0, 45.0))
        bend = shifted(
            rng, ((root[0] + tip[0]) / 2, (root[1] + tip[1]) / 2 - 6.0, (root[2] + tip[2]) / 2), 5.0
        )
        twig = spline([(*root, 2.2), (*bend, 1.9), (*tip, 1.2)], 2.0)
        scene.paint(
            tube(scene.frame, twig, margin=1.0), vein_hu if index % 2 else artery_hu, only=(0,)
        )
