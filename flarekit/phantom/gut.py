"""The digestive tube: esophagus, stomach, duodenum (labelled); small bowel and colon (not)."""

from __future__ import annotations

import numpy as np

from flarekit.phantom.geometry import F32, Bool, Point, Solid, Tube, spline, tube
from flarekit.phantom.scene import DUODENUM, ESOPHAGUS, STOMACH, Scene, filled, shifted

CARDIA: Point = (32.0, 2.0, 50.0)
PYLORUS: Point = (-24.0, -38.0, -19.0)
COLON: tuple[tuple[float, float, float, float], ...] = (
    (-88, 18, -150, 24), (-96, 22, -110, 25), (-98, 26, -80, 22), (-88, 0, -66, 19),
    (-72, -48, -66, 18), (-35, -66, -62, 18), (10, -68, -56, 17), (55, -62, -40, 18),
    (85, -45, -14, 18), (106, -8, 6, 17), (112, 22, -10, 15), (106, 40, -45, 14),
    (104, 40, -90, 14), (98, 32, -150, 15),
)  # fmt: skip


def gas_on_top(solid: Solid, wall_mm: float, share: float) -> Bool:
    """Voxels above a flat fluid level that leaves `share` of the lumen to gas (supine patient)."""
    lumen = solid.depth_mm < -wall_mm
    rows = np.broadcast_to(np.arange(lumen.shape[1])[None, :, None], lumen.shape)
    if not lumen.any() or share <= 0:
        return np.zeros_like(lumen)
    gas: Bool = rows < np.quantile(rows[lumen], share)
    return gas


def paint_esophagus(scene: Scene) -> None:
    """From the chest, in front of the aorta, down to the cardia; sometimes with air in it."""
    rng = scene.rng("esophagus")
    width = rng.uniform(0.85, 1.15)
    x, y, z = CARDIA
    course = [
        (6.0, 26.0, 190.0, 8.0),
        (8.0, 22.0, 130.0, 8.5),
        (14.0, 12.0, 85.0, 8.5),
        (22.0, 5.0, 62.0, 8.5),
    ]
    course.append((x, y, z, 8.5))
    points = [(px, py, pz, r * width) for px, py, pz, r in course]
    gullet = tube(scene.frame, spline(points, 2.0), flat=(1.15, 0.9))
    air = (scene.field("esophagus air", gullet.box, 30.0) > rng.uniform(0.3, 3.0)) & (
        gullet.depth_mm < -4.5
    )
    hu = np.where(air, -700.0, rng.uniform(36.0, 56.0) - 1.5 * np.clip(gullet.depth_mm + 4, -4, 0))
    scene.paint(gullet, hu.astype(np.float32), ESOPHAGUS)


def paint_stomach(scene: Scene) -> None:
    """Fundus under the left dome, body to the front, antrum across the midline to the pylorus."""
    rng = scene.rng("stomach")
    fill = rng.uniform(0.72, 1.12)
    course: list[tuple[Point, float]] = [
        (shifted(rng, (58.0, 10.0, 62.0), 3.0), 20.0),
        (shifted(rng, (62.0, 2.0, 49.0), 3.0), 32.0 * fill),
        (shifted(rng, (66.0, -24.0, 22.0), 3.5), 29.0 * fill),
        (shifted(rng, (58.0, -44.0, -8.0), 4.0), 26.0 * fill),
        (shifted(rng, (32.0, -52.0, -24.0), 4.0), 22.0 * fill),
        (shifted(rng, (2.0, -50.0, -24.0), 3.0), 17.0 * fill),
        (PYLORUS, 9.0),
    ]
    inlet = tube(scene.frame, spline([(*CARDIA, 8.0), (50.0, 6.0, 46.0, 12.0)], 3.0))
    bag = tube(scene.frame, spline([(*point, radius) for point, radius in course], 3.0), margin=9.0)
    folds = 1.2 * scene.field("stomach folds", bag.box, 12.0)
    stomach = scene.confined(Solid(box=bag.box, depth_mm=bag.depth_mm + folds), gap_mm=2.0)
    wall = rng.uniform(3.0, 5.0)
    content: float | F32 = rng.uniform(0.0, 60.0)
    drink = rng.random()
    if drink < 0.15:
        content = rng.uniform(150.0, 350.0)
    elif drink < 0.45:
        content = (content + 22.0 * scene.field("food", bag.box, 8.0)).astype(np.float32)
    gas = gas_on_top(stomach, wall, rng.uniform(-0.15, 0.5))
    hu = filled(
        stomach, wall_mm=wall, wall_hu=scene.tissue_hu["gut_wall"], content_hu=content, gas=gas
    )
    scene.paint(
        scene.confined(inlet), float(scene.tissue_hu["gut_wall"]), STOMACH, keep=(ESOPHAGUS,)
    )
    scene.paint(stomach, hu, STOMACH, halo_mm=1.5)


def paint_duodenum(scene: Scene) -> None:
    """The C from the pylorus around the pancreatic head, under the mesenteric vessels, then up."""
    rng = scene.rng("duodenum")
    swell = rng.uniform(0.85, 1.15)
    course: list[tuple[Point, float]] = [
        (PYLORUS, 9.0),
        (shifted(rng, (-42.0, -28.0, -17.0), 2.0), 12.5),
        (shifted(rng, (-53.0, -8.0, -28.0), 2.5), 12.0),
        (shifted(rng, (-54.0, 2.0, -50.0), 2.5), 12.0),
        (shifted(rng, (-40.0, 0.0, -70.0), 2.5), 12.0),
        (shifted(rng, (-8.0, -6.0, -72.0), 2.0), 10.5),
        (shifted(rng, (22.0, -6.0, -64.0), 2.5), 10.5),
        (shifted(rng, (34.0, -10.0, -40.0), 3.0), 11.0),
    ]
    loop = tube(scene.frame, spline([(*point, radius * swell) for point, radius in course], 2.0))
    duodenum = scene.confined(
        Solid(box=loop.box, depth_mm=loop.depth_mm + 0.7 * scene.field("valves", loop.box, 7.0))
    )
    gas = (loop.rise > 0.3) & (scene.field("duodenal gas", loop.box, 30.0) > rng.uniform(0.4, 2.5))
    content = (rng.uniform(15.0, 50.0) + 10.0 * scene.field("chyme", loop.box, 7.0)).astype(
        np.float32
    )
    if rng.random() < 0.12:
        content += rng.uniform(100.0, 220.0)
    hu = filled(
        duodenum, wall_mm=2.8, wall_hu=scene.tissue_hu["gut_wall"], content_hu=content, gas=gas
    )
    scene.paint(duodenum, hu, DUODENUM, halo_mm=0.8, keep=(STOMACH,))


def paint_small_bowel(scene: Scene) -> None:
    """Loops on random walks through the middle and lower abdomen."""
    rng = scene.rng("small bowel")
    opaque = rng.random() < 0.2
    for index in range(int(rng.integers(30, 37))):
        point = np.array([rng.uniform(-65, 85), rng.uniform(-64, 8), rng.uniform(-135, -30)])
        heading = rng.normal(0.0, 1.0, 3)
        points = []
        for _ in range(int(rng.integers(5, 9))):
            radius = rng.uniform(9.0, 13.0)
            points.append((float(point[0]), float(point[1]), float(point[2]), radius))
            heading = 0.6 * heading / np.linalg.norm(heading) + rng.normal(0.0, 0.6, 3) * (
                1.0,
                1.0,
                0.7,
            )
            point = np.clip(
                point + 22.0 * heading / np.linalg.norm(heading), (-78, -68, -160), (90, 16, -26)
            )
        loop = tube(scene.frame, spline(points, 3.5), margin=4.0)
        bowel = scene.confined(loop, gap_mm=2.0)
        gas = (loop.rise > 0.35) & (scene.field(f"gas {index}", loop.box, 30.0) > 1.3)
        content = (
            rng.uniform(120.0, 260.0) if opaque and rng.random() < 0.6 else rng.uniform(10.0, 45.0)
        )
        hu = filled(
            bowel,
            wall_mm=2.2,
            wall_hu=scene.tissue_hu["gut_wall"] + 8.0,
            content_hu=content,
            gas=gas,
        )
        scene.paint(bowel, hu, halo_mm=1.6)


def paint_colon(scene: Scene) -> None:
    """Ascending, transverse and descending colon with haustra, stool and gas."""
    rng = scene.rng("colon")
    width = rng.uniform(0.8, 1.12)
    curve = spline([(*shifted(rng, (x, y, z), 4.0), r * width) for x, y, z, r in COLON], 4.0)
    curve[:, 3] *= 1.0 + 0.16 * np.sin(np.arange(len(curve)) * 4.0 * 2 * np.pi / 34.0)
    loop: Tube = tube(scene.frame, curve)
    colon = scene.confined(loop, gap_mm=2.0)
    stool = scene.field("stool", loop.box, 5.0)
    content = np.where(stool > 1.1, -350.0, rng.uniform(20.0, 60.0) + 30.0 * stool).astype(
        np.float32
    )
    level = rng.uniform(-0.2, 1.0) + 0.6 * scene.field("colon gas", loop.box, 45.0)
    hu = filled(
        colon,
        wall_mm=2.2,
        wall_hu=scene.tissue_hu["gut_wall"],
        content_hu=content,
        gas=loop.rise > level,
    )
    scene.paint(colon, hu, halo_mm=1.6)
