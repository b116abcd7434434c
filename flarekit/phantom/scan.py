"""One phantom from a seed: size of patient and scan, the painter's order, what a scanner adds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.files import write_atomically
from flarekit.phantom import gut, liver, retroperitoneum
from flarekit.phantom.geometry import F32, Frame, Point, make_frame
from flarekit.phantom.scene import (
    ANATOMY,
    LEFT_ADRENAL,
    LEFT_KIDNEY,
    LIVER,
    RIGHT_ADRENAL,
    RIGHT_KIDNEY,
    SPLEEN,
    Scene,
)
from flarekit.phantom.trunk import make_trunk

T = TypeVar("T", int, float)

PAINTERS_ORDER: tuple[Callable[[Scene], None], ...] = (
    gut.paint_colon,
    gut.paint_small_bowel,
    liver.paint_liver,
    liver.paint_spleen,
    gut.paint_esophagus,
    gut.paint_stomach,
    partial(retroperitoneum.paint_kidney, label=RIGHT_KIDNEY),
    partial(retroperitoneum.paint_kidney, label=LEFT_KIDNEY),
    retroperitoneum.paint_pancreas,
    gut.paint_duodenum,
    liver.paint_gallbladder,
    retroperitoneum.paint_branches,
    retroperitoneum.paint_vena_cava,
    retroperitoneum.paint_aorta,
    partial(retroperitoneum.paint_adrenal, label=RIGHT_ADRENAL),
    partial(retroperitoneum.paint_adrenal, label=LEFT_ADRENAL),
)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A phantom CT and its label map.

    Index x grows to the patient's left, y to posterior, z to superior.
    """

    hu_ZYX: NDArray[np.int16]
    labels_ZYX: NDArray[np.uint8]  # 0 background, 1..13 the FLARE organs
    spacing_mm_ZYX: tuple[float, float, float]
    affine: NDArray[np.float64]  # 4x4, voxel (x, y, z) to world mm, RAS+


def abdomen_phantom(
    seed: int,
    *,
    spacing_mm_ZYX: tuple[float, float, float] | None = None,
    shape_ZYX: tuple[int, int, int] | None = None,
) -> Phantom:
    """Draws an abdominal CT; the same arguments give the same voxels.

    Args:
        seed: the patient; at least 0.
        spacing_mm_ZYX: voxel size; drawn from the seed when absent.
        shape_ZYX: voxels; by default as many as show the whole abdomen. The anatomy keeps its size
            in mm: a small shape at a fine spacing shows the middle of the abdomen only. With a
            shape and no spacing, the spacing is chosen to show the whole abdomen.

    Raises:
        ValueError: the seed is negative, or the spacing or the shape is not positive.
    """
    if seed < 0 or min(spacing_mm_ZYX or (1.0,)) <= 0 or min(shape_ZYX or (1,)) <= 0:
        asked = f"seed {seed}, spacing {spacing_mm_ZYX}, shape {shape_ZYX}"
        message = f"need seed >= 0, spacing > 0 and shape > 0; got {asked}"
        raise ValueError(message)
    rng = np.random.default_rng([seed, 0])
    scale = (rng.uniform(0.92, 1.08), rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.08))
    fat_mm = rng.uniform(5.0, 22.0)
    view_mm = (
        rng.uniform(220.0, 300.0),
        min(300.0, max(260.0, scale[1] * 2 * (101.0 + 0.8 * fat_mm) + rng.uniform(12.0, 40.0))),
        min(400.0, max(340.0, scale[2] * 2 * (146.0 + fat_mm) + rng.uniform(12.0, 40.0))),
    )
    in_plane = rng.uniform(1.2, 2.0)
    drawn = (rng.uniform(2.5, 5.0), in_plane, in_plane)
    if spacing_mm_ZYX is None:
        fitted = zip(view_mm, shape_ZYX or (), strict=False)
        spacing_mm_ZYX = drawn if shape_ZYX is None else _triple([mm / n for mm, n in fitted])
    shape = shape_ZYX or _triple(
        [max(1, round(mm / step)) for mm, step in zip(view_mm, spacing_mm_ZYX, strict=True)]
    )
    middle = [(n - 1) * step / 2 for n, step in zip(shape, spacing_mm_ZYX, strict=True)]
    offset = (rng.uniform(-2.0, 8.0), rng.uniform(-5.0, 5.0), rng.uniform(-6.0, 6.0))
    frame = make_frame(
        np.random.default_rng([seed, 1]),
        shape,
        spacing_mm_ZYX,
        centre_mm_ZYX=_triple([m + o for m, o in zip(middle, offset, strict=True)]),
        scale_ZYX=scale,
        warp_mm=rng.uniform(2.5, 4.2),
    )
    return _painted(seed, frame, fat_mm)


def _painted(seed: int, frame: Frame, fat_mm: float) -> Phantom:
    """Paints trunk and organs on an empty canvas, then scans it."""
    tissue_hu = draw_tissues(np.random.default_rng([seed, 3]))
    blood_hu = 0.5 * (tissue_hu["aorta"] + tissue_hu["portal"])
    trunk_rng = np.random.default_rng([seed, 2])
    hu_ZYX, body_mm, cavity_mm, above_mm = make_trunk(frame, trunk_rng, fat_mm, blood_hu)
    scene = Scene(
        seed=seed,
        frame=frame,
        tissue_hu=tissue_hu,
        hu_ZYX=hu_ZYX,
        labels_ZYX=np.zeros(frame.shape, np.uint8),
        cavity_mm_ZYX=cavity_mm,
        diaphragm_mm_ZYX=above_mm,
    )
    for paint in PAINTERS_ORDER:
        paint(scene)
    _spill_ascites(scene)
    scene.drop_fragments()
    scan_rng = np.random.default_rng([seed, 4])
    hu = scanned(scan_rng, scene.hu_ZYX, frame.spacing_mm_ZYX, body_mm)
    step_z, step_y, step_x = frame.spacing_mm_ZYX
    centre_z, centre_y, centre_x = frame.centre_mm_ZYX
    affine = np.diag([-step_x, -step_y, step_z, 1.0])
    affine[:3, 3] = (centre_x, centre_y, -centre_z)
    return Phantom(
        hu_ZYX=hu, labels_ZYX=scene.labels_ZYX, spacing_mm_ZYX=frame.spacing_mm_ZYX, affine=affine
    )


def _spill_ascites(scene: Scene) -> None:
    """Free fluid around liver and spleen in one patient of eight."""
    from scipy import ndimage

    rng = scene.rng("ascites")
    if rng.random() > 0.12:
        return
    reach_mm = rng.uniform(4.0, 14.0)
    organs = np.isin(scene.labels_ZYX, (LIVER, SPLEEN))
    distance = ndimage.distance_transform_edt(~organs, sampling=scene.frame.spacing_mm_ZYX)
    free = (scene.labels_ZYX == 0) & (scene.cavity_mm_ZYX < -1) & (scene.diaphragm_mm_ZYX < -2)
    free &= (scene.hu_ZYX < -60) & (scene.hu_ZYX > -150) & (np.abs(scene.frame.x_ZYX) > 45)
    scene.hu_ZYX[free & (distance < reach_mm)] = rng.uniform(2.0, 18.0)


def save_phantom(seed: int, *, scan: Path, labels: Path) -> None:
    """Generate a phantom and write its CT (int16 HU) and its label map (uint8), both `.nii.gz`.

    Raises:
        OutputError: a file could not be written.
    """
    phantom = abdomen_phantom(seed)
    _save(scan, phantom.hu_ZYX, phantom.affine)
    _save(labels, phantom.labels_ZYX, phantom.affine)


def _save(path: Path, voxels_ZYX: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    import nibabel
    from isal import igzip

    image = nibabel.Nifti1Image(voxels_ZYX.T, affine)
    image.header.set_xyzt_units("mm")
    write_atomically(path, igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def _triple(values: list[T]) -> tuple[T, T, T]:
    first, second, third = values
    return first, second, third


def draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    """HU of one patient: a phase, each tissue a few percent off the table, maybe a fatty liver."""
    odds = ANATOMY["phase_odds"]
    phase = ANATOMY["phases"][str(rng.choice(list(odds), p=list(odds.values())))]
    overall = rng.normal(1.0, 0.05)
    tissues = {name: hu * overall * rng.normal(1.0, 0.04) for name, hu in phase.items()}
    if rng.random() < 0.12:
        tissues["liver"] -= rng.uniform(15.0, 35.0)
    return tissues


def blurred(hu_ZYX: F32, spacing_mm_ZYX: Point, width_mm: float) -> F32:
    """Partial volume: a Gaussian of `width_mm` in plane, half a slice (at most) along z."""
    from scipy import ndimage

    sigma = (0.35, width_mm / spacing_mm_ZYX[1], width_mm / spacing_mm_ZYX[2])
    result: F32 = ndimage.gaussian_filter(hu_ZYX, sigma, mode="nearest", truncate=3.0)
    return result


def ct_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm_ZYX: Point, sigma_hu: float
) -> F32:
    """Noise as of a soft kernel: white noise blurred by 1.1 mm in plane, hardly along z."""
    from scipy import ndimage

    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = (0.25, 1.1 / spacing_mm_ZYX[1], 1.1 / spacing_mm_ZYX[2])
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    scaled: F32 = noise * np.float32(sigma_hu / max(float(noise.std()), 0.05))
    return scaled


def scanned(
    rng: np.random.Generator, hu_ZYX: F32, spacing_mm_ZYX: Point, body_mm_ZYX: F32
) -> NDArray[np.int16]:
    """The volume as a scanner would store it; noise is strongest deep in the body."""
    depth, height, width = hu_ZYX.shape
    volume = blurred(hu_ZYX, spacing_mm_ZYX, rng.uniform(0.7, 1.1))
    sigma_hu = rng.uniform(8.0, 20.0)
    noise = ct_noise(rng, (depth, height, width), spacing_mm_ZYX, sigma_hu)
    noise *= np.clip(0.8 - body_mm_ZYX / 250.0, 0.35, 1.15)
    volume += noise
    return np.clip(np.rint(volume), -1024, 3071).astype(np.int16)
