"""Masks on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from flarekit.core.volume import Geometry
from flarekit.evaluation.masks import Mask

SPACING_MM_XYZ = (0.7, 0.9, 2.5)


@pytest.fixture
def write_mask() -> Callable[..., Path]:
    """Return a function that writes a uint8 NIfTI mask indexed (Z, Y, X)."""

    def write(path: Path, values_ZYX: Any, spacing_mm_XYZ: Any = SPACING_MM_XYZ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([*spacing_mm_XYZ, 1.0])
        nibabel.save(nibabel.Nifti1Image(np.asarray(values_ZYX, np.uint8).T, affine), path)
        return path

    return write


@pytest.fixture
def mask() -> Callable[..., Mask]:
    """Return a function that makes a mask in memory, indexed (Z, Y, X)."""

    def make(values_ZYX: Any, spacing_mm_XYZ: Any = SPACING_MM_XYZ, path: Path = Path("x")) -> Mask:
        values = np.asarray(values_ZYX, np.uint8)
        affine = np.diag([*spacing_mm_XYZ, 1.0])
        return Mask(
            values_ZYX=values,
            spacing_mm_XYZ=np.asarray(spacing_mm_XYZ, np.float32),
            geometry=Geometry(shape_ZYX=values.shape, affine=affine, header=None),
            path=path,
        )

    return make
