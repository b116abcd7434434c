"""What segmenting one scan came to, in the scan's own order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import OutputError
from flarekit.core.records import LabelStatistics
from flarekit.core.scan_files import nifti_geometry, sitk_of, write_mask
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume
from flarekit.report.statistics import label_statistics, label_volumes
from flarekit.segmentation.context import CaseExtras
from flarekit.segmentation.scans import Axes, ScanInput
from flarekit.segmentation.segmented import Segmented


@dataclass(frozen=True, kw_only=True)
class Result:
    """Labels of one scan, and what there is to say about them.

    Attributes:
        labels: uint8, 0 is the background; axes as `axes` says.
        label_names: value in the labels -> its name.
        volumes_ml: label name -> volume, in ml; 0 where nothing was found.
        probabilities: float32, (class, ...) with the axes of the labels; classes are the background
            and then the labels in the order of their values, and sum to 1. Where
            labels overlap, there is one map per region and none of the background. They come from
            the network alone: rules that change labels do not change them. Large ones lie in a file
            that is removed with the array. None where they were not asked for.
        seconds: from the call to the labels.
        stage_seconds: where the time went: read, prepare, plan, tiles, restore, rules.
        traded: what was given up to keep a budget, in words; empty where nothing was.
        warnings: what was odd about the scan, and how it was taken.
        axes: `xyz` for paths and nibabel images, `zyx` for SimpleITK images and arrays.
        affine: (4, 4) float64, index (x, y, z, 1) -> mm, RAS+.
    """

    labels: NDArray[np.uint8]
    label_names: dict[int, str]
    volumes_ml: dict[str, float]
    probabilities: NDArray[np.float32] | None
    seconds: float
    stage_seconds: dict[str, float]
    traded: tuple[str, ...]
    warnings: tuple[str, ...]
    axes: Axes
    affine: NDArray[np.float64]
    _geometry: Geometry = field(repr=False)
    _files: tuple[Path, ...] = field(repr=False, default=())
    _statistics: Callable[[], tuple[LabelStatistics, ...]] = field(repr=False)

    @classmethod
    def of(cls, done: Segmented, source: ScanInput, spec: PredictorSpec, seconds: float) -> Result:
        """Return what a case came to, in the order of its input."""
        turned = source.axes == "xyz"
        probabilities = done.probabilities
        if probabilities is not None and turned:
            probabilities = probabilities.transpose(0, 3, 2, 1)
        return cls(
            labels=done.label_map_ZYX.T if turned else done.label_map_ZYX,
            label_names={value: name for name, value in spec.mask_labels.items()},
            volumes_ml=label_volumes(done.label_map_ZYX, spec.mask_labels, done.voxel_ml),
            probabilities=probabilities,
            seconds=seconds,
            stage_seconds=dict(done.clock.seconds),
            traded=done.traded,
            warnings=done.warnings,
            axes=source.axes,
            affine=done.geometry.affine,
            _geometry=done.geometry,
            _files=source.files,
            _statistics=_measured(done, source, spec),
        )

    @cached_property
    def statistics(self) -> tuple[LabelStatistics, ...]:
        """What labels and scan tell of every label: volume, intensity, parts, place.

        Where they were not asked for when the scan was segmented, they are measured when they are
        first looked at, and the scan is read once more for that.

        Raises:
            InputError: it cannot be read any more.

        >>> import flarekit
        >>> segmenter = flarekit.load("mpu_net_liver")
        >>> (liver,) = segmenter.segment("scan.nii.gz", statistics=True).statistics
        >>> liver.label, liver.volume_ml, liver.components
        ('liver', 0.0, 0)
        """
        return self._statistics()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels as a mask: uint8, with the scan's own header where the formats agree.

        Args:
            path: ends in .nii, .nii.gz, .mha or .nrrd; its folder exists. A scan is never replaced.

        Returns:
            The path.

        Raises:
            UsageError: another ending.
            OutputError: it cannot be written, or is the scan itself.

        >>> import flarekit
        >>> segmenter = flarekit.load("mpu_net_liver")
        >>> segmenter.segment("scan.nii.gz").save("mask.nii.gz").name
        'mask.nii.gz'
        """
        target = Path(path)
        if any(target.exists() and target.samefile(file) for file in self._files if file.exists()):
            raise OutputError(f"{target}: is the scan itself", fix="name another file")
        write_mask(target, self._labels_ZYX, self._geometry)
        return target

    def to_nibabel(self) -> Any:  # noqa: ANN401 - nibabel carries no types
        """Return the labels as a nibabel image, (x, y, z), with the scan's affine.

        >>> import numpy as np
        >>> import flarekit
        >>> segmenter = flarekit.load("mpu_net_liver")
        >>> scan = np.zeros((12, 40, 48), np.int16)
        >>> segmenter.segment(scan, spacing_mm=(5, 2, 2)).to_nibabel().shape
        (48, 40, 12)
        """
        import nibabel

        header = nifti_geometry(self._geometry).header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        kind = nibabel.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nibabel.Nifti1Image
        labels_XYZ, affine = self._labels_ZYX.T, header.get_best_affine()
        image = kind(labels_XYZ, affine, header)  # type: ignore[no-untyped-call]
        image.header["cal_min"] = image.header["cal_max"] = 0
        return image

    def to_sitk(self) -> Any:  # noqa: ANN401 - SimpleITK carries no types
        """Return the labels as a SimpleITK image with the scan's spacing, origin and direction.

        >>> import numpy as np
        >>> import flarekit
        >>> segmenter = flarekit.load("mpu_net_liver")
        >>> scan = np.zeros((12, 40, 48), np.int16)
        >>> segmenter.segment(scan, spacing_mm=(5, 2, 2)).to_sitk().GetSpacing()
        (2.0, 2.0, 5.0)
        """
        return sitk_of(self._labels_ZYX, self.affine)

    @property
    def _labels_ZYX(self) -> NDArray[np.uint8]:  # noqa: N802 - axis letters
        return self.labels.T if self.axes == "xyz" else self.labels


def _measured(
    done: Segmented, source: ScanInput, spec: PredictorSpec
) -> Callable[[], tuple[LabelStatistics, ...]]:
    """Return what gives the statistics: known where the scan is in hand, else it is read again."""
    label_map, geometry, labels = done.label_map_ZYX, done.geometry, spec.mask_labels

    def measure(volumes: Mapping[str, Volume]) -> tuple[LabelStatistics, ...]:
        channels = {name: volume.voxels_ZYX for name, volume in volumes.items()}
        return label_statistics(label_map, geometry, labels, channels)

    if done.kept:
        found = measure(done.kept)
        return lambda: found
    return lambda: measure(CaseExtras(statistics=True).kept(source.read(), spec))
