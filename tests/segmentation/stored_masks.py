"""Small inputs made from a seed, and the masks of every predictor on them, kept beside this file.

    python -m tests.segmentation.stored_masks     # writes all masks anew

The masks were made by the commit before shapes came before voxels, in fp32; those of mpu_net_liver
by a later one that gave the same masks as that, of a smaller scan. Where a predictor got a locator,
its masks of `fast` were made anew with it: tiles stand elsewhere since then. Where it got new
weights, all of its masks were; those of `mamba_ahnet_mr` are of its first.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel
import numpy as np

from flarekit.core.spec import PredictorFolder
from flarekit.phantom import abdomen_phantom, save_phantom
from flarekit.segmentation.predictors import find_predictor

HERE = Path(__file__).parent / "stored"
WEIGHTS = HERE / "weights.json"
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
FLARE = ("abdomen_ct", "mpu_net_liver", "attention_unet_abdomen", "mamba_clinix_abdomen")
AHNET = ("mamba_ahnet_lesion", "mamba_ahnet_mr")
CASES = [
    *((name, mode) for name in FLARE for mode in ("fast", "exact")),
    *((name, mode) for name in ("att_umamba_petct", *AHNET) for mode in ("fast", "exact")),
]


def scans(predictor: str, folder: Path) -> list[Path]:
    """Write the scan of a predictor, one file per channel, and return the files."""
    if predictor == "att_umamba_petct":
        return [write(folder / f"{k}.nii.gz", volume) for k, volume in enumerate(petct())]
    if predictor in AHNET:
        return [write(folder / "voi.nii.gz", nodule())]
    path = folder / "phantom.nii.gz"
    if predictor == "mpu_net_liver":  # of which few slices are much: it looks at them 1 mm apart
        middle = abdomen_phantom(1, spacing_mm_ZYX=(5.0, 2.6, 2.6), shape_ZYX=(8, 110, 140))
        nibabel.save(nibabel.Nifti1Image(middle.hu_ZYX.T, middle.affine), path)
        return [path]
    save_phantom(1, scan=path, labels=folder / "truth.nii.gz")
    image = nibabel.load(path)
    nibabel.save(image.slicer[::2, ::2, 20:44], path)  # the upper abdomen, two voxels as one
    return [path]


def petct() -> tuple[np.ndarray, np.ndarray]:
    """Return a trunk of soft tissue with two hot balls, as CT in HU and PET in SUV."""
    z, y, x = np.ogrid[:48, :60, :60]
    trunk = ((y - 30) / 22.0) ** 2 + ((x - 30) / 26.0) ** 2 < 1
    rng = np.random.default_rng(0)
    ct = np.where(trunk, 40, -1000) + rng.normal(0, 12, (48, 60, 60))
    pet = np.where(trunk, 1.0, 0.05) + rng.normal(0, 0.1, (48, 60, 60))
    for centre, radius, uptake in (((14, 24, 22), 4, 9.0), ((33, 36, 38), 6, 14.0)):
        away = sum(((a - c) / radius) ** 2 for a, c in zip((z, y, x), centre, strict=True))
        pet += uptake * np.exp(-away * 0.7)
        ct += np.where(away < 1, 15, 0)
    return ct.astype(np.float32), pet.clip(0).astype(np.float32)


def nodule() -> np.ndarray:
    """Return a ball in lung, in HU."""
    z, y, x = np.ogrid[:24, :64, :64]
    away = ((z - 12) / 5.0) ** 2 + ((y - 32) / 11.0) ** 2 + ((x - 32) / 9.0) ** 2
    noise = np.random.default_rng(1).normal(0, 20, (24, 64, 64))
    return (np.where(away < 1, 30, -800) + noise).astype(np.int16)


def write(path: Path, voxels_ZYX: np.ndarray) -> Path:
    """Write a scan."""
    nibabel.save(nibabel.Nifti1Image(voxels_ZYX.T, AFFINE), path)
    return path


def mask_of(predictor: str, mode: str) -> Path:
    """Return where a mask is kept."""
    return HERE / f"{predictor}_{mode}.nii.gz"


def weights_of(predictor: PredictorFolder) -> str:
    """Return what tells a predictor's weights from any other's."""
    return " ".join(weights.sha256 for weights in predictor.all_members.values())


def main() -> None:
    """Write every mask anew."""
    import flarekit

    known = {name: weights_of(find_predictor(name)) for name, _ in CASES}
    WEIGHTS.write_text(json.dumps(known, indent=1) + "\n")
    for predictor, mode in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            files = scans(predictor, Path(scratch))
            segmenter = flarekit.load(
                predictor, mode=mode, engine="torch", device="cpu", precision="fp32"
            )
            segmenter.segment(files).save(mask_of(predictor, mode))


if __name__ == "__main__":
    main()
