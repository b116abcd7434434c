"""Inputs from seeds, written on all cores, the smallest first: CTs, whole-body PET/CTs, stacks.

A phantom's middle is drawn once, coarsely; each size is cut from it, mirrored in Z where it ends,
with twice the pixels and noise. Files appear whole, under their final names.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.supervise import Settings
from gpu.worker import Record

SLICES = (55, 100, 150, 215, 334, 448, 499, 554)  # of the FLARE23 paper's Table 4
THREE = (55, 215, 554)
STACKS = {55: 1, 215: 4, 554: 16}  # volumes of interest instead of slices
_QUICK = {55: 16, 215: 24, 554: 32}
_SIDE, _QUICK_SIDE = 512, 64
_PET_SIDE, _QUICK_PET_SIDE = 400, 64
_SPACING_MM, _QUICK_SPACING_MM = 0.8, 3.2  # of a CT, in plane
_BASE_Z_MM = 4.0
_NOISE_HU, _NOISES = 12.0, 8
_MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
CompressedDataSize = {size}
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = {x_mm} {y_mm} {z_mm}
DimSize = {x} {y} {z}
ElementType = {element}
ElementDataFile = LOCAL
"""


def sizes(convention: str, *, quick: bool, every: bool = False) -> tuple[int, ...]:
    """Return the sizes that a convention's inputs are made in, smallest first."""
    if quick:
        return (55, 215) if every else (55,)
    return SLICES if every and convention == "flare" else THREE


def folder_of(settings: Settings, convention: str, size: int) -> Path:
    """Return the input folder of one case."""
    return Path(settings.work) / "inputs" / f"{convention}_{size}"


def wait_for(settings: Settings, convention: str, size: int) -> Path | None:
    """Return an input folder when it is there; None where the step's time is up before."""
    folder = folder_of(settings, convention, size)
    while not folder.is_dir():
        if settings.left_s < 1:
            return None
        time.sleep(0.05)
    return folder


def run(settings: Settings, record: Record) -> None:
    began = time.time()
    root = Path(settings.work) / "inputs"
    root.mkdir(parents=True, exist_ok=True)
    _draw_bases(root, quick=settings.quick)
    record.add(drawn_s=round(time.time() - began, 1))
    jobs = [
        (convention, size)
        for convention in ("flare", "autopet", "uls23")
        for size in sizes(convention, quick=settings.quick, every=True)
    ]
    jobs.sort(key=lambda job: (job[1] not in THREE, job[1]))
    with ProcessPoolExecutor(max_workers=min(len(jobs), os.cpu_count() or 1)) as pool:
        futures = {
            pool.submit(_make, str(root), convention, size, quick=settings.quick): job
            for job in jobs
            for convention, size in [job]
        }
        for future in as_completed(futures):
            convention, size = futures[future]
            with record.attempt(f"{convention}_{size}"):
                future.result()
                name = f"{convention}_{size}"
                record.append("made", {"input": name, "after_s": round(time.time() - began, 1)})


def _draw_bases(root: Path, *, quick: bool) -> None:
    from flarekit.conventions.autopet.samples import petct
    from flarekit.phantom import abdomen_phantom

    side = (_QUICK_SIDE if quick else _SIDE) // 2
    mm = 2 * (_QUICK_SPACING_MM if quick else _SPACING_MM)
    deep = 20 if quick else 75
    phantom = abdomen_phantom(1, spacing_mm_ZYX=(_BASE_Z_MM, mm, mm), shape_ZYX=(deep, side, side))
    np.save(root / "ct.npy", phantom.hu_ZYX)
    body = petct()
    np.savez(root / "petct.npz", hu=body.hu_ZYX, suv=body.suv_ZYX)


def _make(root: str, convention: str, size: int, *, quick: bool) -> None:
    draft = Path(root) / f"{convention}_{size}.draft"
    draft.mkdir()
    {"flare": _make_ct, "autopet": _make_petct, "uls23": _make_stack}[convention](
        draft, size, quick=quick
    )
    draft.rename(draft.with_suffix(""))


def _make_ct(folder: Path, size: int, *, quick: bool) -> None:
    import nibabel
    from isal import igzip

    base = np.load(folder.parent / "ct.npy", mmap_mode="r")
    slices = _QUICK.get(size, size) if quick else size
    z_mm = max(1.0, min(5.0, 300 / slices))
    mm = _QUICK_SPACING_MM if quick else _SPACING_MM
    noises = np.random.default_rng(size).normal(0, _NOISE_HU, (_NOISES, *base[0].shape, 2, 2))
    grain = np.rint(noises).astype(np.int16).transpose(0, 1, 3, 2, 4)
    grain = grain.reshape(_NOISES, 2 * base.shape[1], 2 * base.shape[2])
    voxels = np.empty((slices, *grain.shape[1:]), np.int16)
    for z in range(slices):
        coarse = np.rint(_between(base, z * z_mm / _BASE_Z_MM)).astype(np.int16)
        voxels[z] = coarse.repeat(2, 0).repeat(2, 1) + grain[z % _NOISES]
    image = nibabel.Nifti1Image(voxels.T, np.diag([-mm, -mm, z_mm, 1.0]))
    image.header.set_xyzt_units("mm")
    content = image.header.binaryblock + b"\0" * 4 + voxels.tobytes()
    name = folder / f"ct{size:03d}_0000.nii.gz"
    name.write_bytes(igzip.compress(content, compresslevel=1, mtime=0))


def _make_petct(folder: Path, size: int, *, quick: bool) -> None:
    bases = np.load(folder.parent / "petct.npz")
    side = _QUICK_PET_SIDE if quick else _PET_SIDE
    slices = _QUICK.get(size, size) if quick else size
    twice = 1 if quick else 2
    mm, z_mm = 4.07 / twice, 3.0
    for name, air, element in (("hu", -1024.0, "MET_SHORT"), ("suv", 0.0, "MET_FLOAT")):
        base = bases[name].astype(np.float32)
        kind = np.int16 if element == "MET_SHORT" else np.float32
        voxels = np.full((slices, side, side), air, kind)
        rows, columns = (min(side, twice * n) for n in base.shape[1:])
        top, left = (side - rows) // 2, (side - columns) // 2
        for z in range(slices):
            flat = _between(base, z * z_mm / 5.0).repeat(twice, 0).repeat(twice, 1)
            part = flat[:rows, :columns] if element == "MET_FLOAT" else np.rint(flat)
            voxels[z, top : top + rows, left : left + columns] = part[:rows, :columns]
        place = folder / "images" / ("ct" if name == "hu" else "pet")
        place.mkdir(parents=True)
        _write_mha(place / f"case_{size:03d}.mha", voxels, element, (z_mm, mm, mm))


def _make_stack(folder: Path, size: int, *, quick: bool) -> None:
    from flarekit.conventions.uls23 import samples as uls23

    count = 1 if quick else STACKS[size]
    uls23.write_stack(folder, [uls23.SCENES[k % len(uls23.SCENES)] for k in range(count)])


def _between(base_ZYX: NDArray[Any], place: float) -> NDArray[np.float32]:
    """Return the slice at a place between two slices, going back and forth beyond the ends."""
    last = len(base_ZYX) - 1
    place = abs((place + last) % (2 * last) - last)
    low = min(int(place), last - 1)
    share = np.float32(place - low)
    first, second = (base_ZYX[k].astype(np.float32) for k in (low, low + 1))
    mixed: NDArray[np.float32] = first + share * (second - first)
    return mixed


def _write_mha(
    path: Path, voxels: NDArray[Any], element: str, spacing_mm: tuple[float, float, float]
) -> None:
    from isal import isal_zlib

    content = isal_zlib.compress(voxels.tobytes(), 1)
    z, y, x = voxels.shape
    z_mm, y_mm, x_mm = spacing_mm
    header = _MHA.format(
        size=len(content), x=x, y=y, z=z, x_mm=x_mm, y_mm=y_mm, z_mm=z_mm, element=element
    )
    path.write_bytes(header.encode() + content)
