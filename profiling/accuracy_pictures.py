"""The worst case of a split as a small PNG: truth, prediction and where they differ."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from flarekit.core.files import make_folder, write_atomically
from flarekit.evaluation.masks import SUFFIXES, read_mask
from flarekit.evaluation.picture import Pictures, draw_case

_MOST_BYTES = 14_000
_AROUND_MM = 90.0


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where the files of a case are: `CASE` in `masks` and `truths`, `CASE_0000` in `scans`."""

    masks: Path
    truths: Path
    scans: Path


def draw_worst(path: Path, case_id: str, files: Files, labels: Mapping[str, int]) -> None:
    """Draw a case in the slices with most of its truth.

    Raises:
        OutputError: it could not be written.
    """
    make_folder(path.parent)
    truth, predicted = (read_mask(file_of(each, case_id)) for each in (files.truths, files.masks))
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Pictures(folder=Path(scratch), scans=files.scans)
        draw_case(pictures, case_id, truth, predicted, labels)
        write_atomically(path, small_picture(Path(scratch) / f"{case_id}.png"))


def draw_around_worst(path: Path, case_id: str, files: Files, labels: Mapping[str, int]) -> None:
    """Draw only what lies around a case's largest false positive, if it has one.

    Raises:
        OutputError: it could not be written.
    """
    import cc3d

    truth, predicted = (read_mask(file_of(each, case_id)) for each in (files.truths, files.masks))
    false = (predicted.values_ZYX > 0) & (truth.values_ZYX == 0)
    if not false.any():
        draw_worst(path, case_id, files, labels)
        return
    middle = np.argwhere(cc3d.largest_k(false, k=1, connectivity=18) > 0).mean(axis=0)
    reach = _AROUND_MM / truth.spacing_mm_XYZ[::-1]
    low = np.maximum(0, np.floor(middle - reach)).astype(int)
    high = np.minimum(false.shape, np.ceil(middle + reach)).astype(int)
    with tempfile.TemporaryDirectory() as scratch:
        cropped = Files(**{name: Path(scratch) / name for name in ("masks", "truths", "scans")})
        for source, target, name in (
            (files.masks, cropped.masks, case_id),
            (files.truths, cropped.truths, case_id),
            (files.scans, cropped.scans, f"{case_id}_0000"),
        ):
            target.mkdir()
            image = SimpleITK.ReadImage(str(file_of(source, name)))
            size, index = (high - low)[::-1].tolist(), low[::-1].tolist()
            box = SimpleITK.RegionOfInterest(image, size, index)
            SimpleITK.WriteImage(box, str(target / f"{name}.mha"))
        draw_worst(path, case_id, cropped, labels)


def small_picture(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """Return a picture as WebP, made smaller until it is a small file."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    while True:
        stream = io.BytesIO()
        image.save(stream, format="WEBP", quality=55, method=6)
        if stream.tell() <= most_bytes:
            return stream.getvalue()
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.BOX)


def file_of(folder: Path, name: str) -> Path:
    """Return the volume of that name, whatever its ending."""
    return next(path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file())
