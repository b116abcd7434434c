"""What a case leaves in its folder: mask, measurements, and what is made when it is asked for."""

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from flarekit.core.files import write_atomically
from flarekit.core.nifti import read_nifti
from flarekit.core.package import VERSION
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.report.picture import write_picture
from flarekit.report.quality import Findings, flags_of
from flarekit.report.statistics import StatisticsTable, label_statistics
from flarekit.segmentation.context import CaseExtras
from flarekit.segmentation.memory import resident_mib
from flarekit.segmentation.result import Result
from flarekit.segmentation.segmenter import Segmenter
from flarekit.service.problems import Problem, without_names
from flarekit.service.scans import UploadedScan
from flarekit.service.store import StoredCase

MASK = "mask.nii.gz"
_SAMPLE_S = 0.1
_MOST_SAMPLES = 300


@dataclass(kw_only=True)
class MemoryCurve:
    """Resident memory of this process while something runs, as (seconds, MiB)."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def shortened(self) -> list[tuple[float, float]]:
        """Return a few hundred samples at most, rounded; of neighbours the highest stays."""
        step = -(-len(self.samples) // _MOST_SAMPLES) or 1
        groups = [self.samples[k : k + step] for k in range(0, len(self.samples), step)]
        highest = [max(group, key=lambda sample: sample[1]) for group in groups]
        return [(round(at, 2), round(mib, 1)) for at, mib in highest]

    def _run(self) -> None:
        began = time.monotonic()
        while True:
            self.samples.append((time.monotonic() - began, resident_mib()))
            if self._over.wait(_SAMPLE_S):
                self.samples.append((time.monotonic() - began, resident_mib()))
                return


def summary_of(
    result: Result, scan: UploadedScan, segmenter: Segmenter, curve: MemoryCurve, folder: Path
) -> dict[str, Any]:
    """Return what a case came to and by what, but for its files, as plain values for JSON."""
    facts = segmenter.facts
    warnings = [without_names(text, folder) for text in (*scan.notes, *result.warnings)]
    return {
        "labels": {str(value): name for value, name in result.label_names.items()},
        "volumes_ml": {name: round(ml, 4) for name, ml in result.volumes_ml.items()},
        "shape": list(result.labels.shape),
        "affine": np.round(result.affine, 9).tolist(),
        "seconds": round(result.seconds, 3),
        "stage_seconds": {name: round(spent, 4) for name, spent in result.stage_seconds.items()},
        "traded": list(result.traded),
        "warnings": warnings,
        "memory": curve.shortened(),
        "engine": facts.engine,
        "device": facts.device,
        "device_name": facts.device_name,
        "precision": facts.precision,
        "scans_by": facts.scan,
        "flarekit": VERSION,
        "weights_sha256": segmenter.spec.weights.sha256,
    }


def record_of(case: StoredCase) -> dict[str, Any]:
    """Return the record of a case that is done: what computed what, and how."""
    return {
        "predictor": case.predictor,
        "case": case.id,
        "options": case.options,
        "clicks": case.clicks,
        "created": case.created,
        **case.result,
    }


class Files:
    """The files of cases that are made when they are asked for, once for each mask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def picture(
        self, folder: Path, revision: int, scan: UploadedScan, labels: dict[str, int]
    ) -> Path:
        """Return the picture of a case, drawn where it is not."""
        path = folder / f"picture-{revision}.png"
        with self._lock:
            if not path.is_file():
                mask = read_nifti(folder / MASK).voxels_ZYX.astype(np.uint8)
                write_picture(path, scan.source.read()[0], mask, labels)
        return path

    def statistics(
        self, folder: Path, revision: int, scan: UploadedScan, spec: PredictorSpec
    ) -> tuple[Path, Path]:
        """Return what every label measures, as JSON and as CSV, measured where it is not."""
        table, lines = (folder / f"statistics-{revision}.{kind}" for kind in ("json", "csv"))
        with self._lock:
            if not table.is_file():
                mask = read_nifti(folder / MASK)
                kept = CaseExtras(statistics=True).kept(scan.source.read(), spec)
                channels = {name: volume.voxels_ZYX for name, volume in kept.items()}
                labels = mask.voxels_ZYX.astype(np.uint8)
                found = label_statistics(labels, mask.geometry, spec.labels, channels)
                StatisticsTable(lines).add(folder.name, found)
                flags = flags_of(found, spec.expected, Findings())
                said = [
                    asdict(each)
                    | {"flags": [flag.text for flag in flags if flag.label == each.label]}
                    for each in found
                ]
                write_atomically(table, json.dumps(said).encode())
        return table, lines

    def segmentation(self, folder: Path, revision: int, scan: UploadedScan) -> Path:
        """Return the DICOM segmentation of a case, written where it is not.

        Raises:
            Problem: the scan did not come as DICOM.
        """
        if scan.convention is None or scan.case is None:
            raise Problem(
                404, "the scan did not come as DICOM", fix="take the mask, which is a NIfTI"
            )
        path = folder / f"segmentation-{revision}.dcm"
        with self._lock:
            if not path.is_file():
                mask = read_nifti(folder / MASK)
                labels = mask.voxels_ZYX.astype(np.uint8)
                made = folder / f"segmentation-{revision}"
                written = scan.convention.write_mask(scan.case, labels, mask.geometry, made)
                written.replace(path)
                made.rmdir()
        return path

    def scan(self, folder: Path, files: dict[str, Any], scan: UploadedScan, channel: int) -> Path:
        """Return a channel as a file that viewers open; series are written as NIfTI."""
        names = list(files.values())
        if scan.case is None:
            return folder / str(names[channel])
        path = folder / f"scan-{channel}.nii.gz"
        with self._lock:
            if not path.is_file():
                _write_nifti(path, scan.source.read()[channel])
        return path


def _write_nifti(path: Path, volume: Volume) -> None:
    import nibabel
    from isal import igzip

    voxels = volume.voxels_ZYX
    if voxels.dtype not in (np.uint8, np.int16, np.float32):
        voxels = voxels.astype(np.float32)
    image = nibabel.Nifti1Image(voxels.T, volume.geometry.affine)
    image.header.set_xyzt_units("mm")
    write_atomically(path, igzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
