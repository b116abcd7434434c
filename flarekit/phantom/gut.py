"""The digestive tube: esophagus, stomach, duodenum (labelled); small bowel and colon (not)."""

import numpy as np

from flarekit.phantom.geometry import F32, Bool, Solid, Tube, spline, tube
from flarekit.phantom.scene import DUODENUM, ESOPHAGUS, STOMACH, Scene, course


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
    knots = course("esophagus", rng, rng.uniform(0.85, 1.15))
    gullet = tube(scene.frame, spline(knots, 2.0), flat=(1.15, 0.9))
    air = (scene.field("esophagus air", gullet.box, 30.0) > rng.uniform(0.3, 3.0)) & (
        gullet.depth_mm < -4.5
    )
    hu = np.where(air, -700.0, rng.uniform(36.0, 56.0) - 1.5 * np.clip(gullet.depth_mm + 4, -4, 0))
    scene.paint(gullet, hu.astype(np.float32), ESOPHAGUS)


def paint_stomach(scene: Scene) -> None:
    """Fundus under the left dome, body to the front, antrum across the midline to the pylorus."""
    rng = scene.rng("stomach")
    fill = rng.uniform(0.72, 1.12)
    first, *middle, last = course("stomach", rng)
    knots = [first, *((x, y, z, radius * fill) for x, y, z, radius in middle), last]
    inlet = tube(scene.frame, spline(course("stomach_inlet", rng), 3.0))
    bag = tube(scene.frame, spline(knots, 3.0), margin=9.0)
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
    hu = scene.hollow(stomach, wall, content, gas)
    scene.paint(
        scene.confined(inlet), float(scene.tissue_hu["gut_wall"]), STOMACH, keep=(ESOPHAGUS,)
    )
    scene.paint(stomach, hu, STOMACH, halo_mm=1.5)


def paint_duodenum(scene: Scene) -> None:
    """The C from the pylorus around the pancreatic head, under the mesenteric vessels, then up."""
    rng = scene.rng("duodenum")
    knots = course("duodenum", rng, rng.uniform(0.85, 1.15))
    loop = tube(scene.frame, spline(knots, 2.0))
    duodenum = scene.confined(
        Solid(box=loop.box, depth_mm=loop.depth_mm + 0.7 * scene.field("valves", loop.box, 7.0))
    )
    gas = (loop.rise > 0.3) & (scene.field("duodenal gas", loop.box, 30.0) > rng.uniform(0.4, 2.5))
    content = (rng.uniform(15.0, 50.0) + 10.0 * scene.field("chyme", loop.box, 7.0)).astype(
        np.float32
    )
    if rng.random() < 0.12:
        content += rng.uniform(100.0, 220.0)
    hu = scene.hollow(duodenum, 2.8, content, gas)
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
        hu = scene.hollow(bowel, 2.2, content, gas, stiff_hu=8.0)
        scene.paint(bowel, hu, halo_mm=1.6)


def paint_colon(scene: Scene) -> None:
    """Ascending, transverse and descending colon with haustra, stool and gas."""
    rng = scene.rng("colon")
    curve = spline(course("colon", rng, rng.uniform(0.8, 1.12)), 4.0)
    curve[:, 3] *= 1.0 + 0.16 * np.sin(np.arange(len(curve)) * 4.0 * 2 * np.pi / 34.0)
    loop: Tube = tube(scene.frame, curve)
    colon = scene.confined(loop, gap_mm=2.0)
    stool = scene.field("stool", loop.box, 5.0)
    content = np.where(stool > 1.1, -350.0, rng.uniform(20.0, 60.0) + 30.0 * stool).astype(
        np.float32
    )
    level = rng.uniform(-0.2, 1.0) + 0.6 * scene.field("colon gas", loop.box, 45.0)
    hu = scene.hollow(colon, 2.2, content, loop.rise > level)
    scene.paint(colon, hu, halo_mm=1.6)
