"""fp16 and bf16 against fp32 on whole real CTs: equal voxels, and the Dice of every label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flarekit.engine._cpu import cpu_name, cpu_runs_bf16
from gpu import inputs
from gpu.predicting import agreement, find, masks_of, predict_here
from gpu.supervise import Settings
from gpu.worker import Record

_LEAST_S = 2.0


def run(settings: Settings, record: Record) -> None:
    scans = Path(settings.work) / "scans"
    if settings.quick:
        scans = inputs.wait_for(settings, "flare", 55) or scans
        record.add(scans="a generated one: real CTs take a CPU too long")
    if not any(scans.glob("*_0000.nii.gz")):
        record.add(skipped="no real CTs were brought along (gpu_check.py pack --scans FOLDER)")
        return
    others: tuple[str, ...] = ("fp16", "bf16") if settings.device == "cuda" else ("bf16",)
    if settings.device != "cuda" and not cpu_runs_bf16():
        others = ()
        record.add(left_out={"bf16": f"{cpu_name()} does not compute in it"})
    names = [name for name in settings.predictors if find(name).spec.convention == "flare"]
    for name in names[:1] if settings.quick else names:
        if name in settings.untrained:
            record.append("rows", {"predictor": name, "skipped": "its weights are random"})
            continue
        with record.attempt(name):
            _compare(settings, record, name, scans, others)


def _compare(
    settings: Settings, record: Record, name: str, scans: Path, others: tuple[str, ...]
) -> None:
    masks: dict[str, dict[str, Any]] = {}
    for precision in ("fp32", *others):
        if settings.left_s < _LEAST_S:
            record.append("rows", {"predictor": name, "skipped": f"no time left for {precision}"})
            return
        done = predict_here(settings, name, scans, ["--precision", precision])
        masks[precision] = masks_of(done.masks)
        row: dict[str, Any] = {"predictor": name, "precision": precision, **done.note()}
        if precision != "fp32":
            row |= agreement(masks["fp32"], masks[precision])
        else:
            row["foreground"] = {key: int((mask > 0).sum()) for key, mask in masks["fp32"].items()}
        record.append("rows", row)
