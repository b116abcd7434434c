"""Run one network and its weights through nnunetv2 and through flarekit, and compare the masks.

    python profiling/agree_nnunet.py SCANS --nnunet VENV/bin/nnUNetv2_predict_from_modelfolder

SCANS holds *_0000.nii.gz. The predictor (abdomen_ct) is written as an nnU-Net result folder and
imported from there, and both predict on the CPU in float32 with step 0.5 and no mirroring; then
flarekit predicts once more in bf16, where the processor computes in it. The result goes to
agree_nnunet.json beside this file. --quick takes the first scan.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import nnunet_folder
import numpy as np
from measured import left_out, parsed, parser_of, write

from flarekit.evaluation.confusion import dice_per_label
from flarekit.importing import ImportOptions, import_predictor
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor


def compare(ours: Path, theirs: Path, labels: dict[str, int]) -> dict[str, Any]:
    cases = {}
    for path in sorted(theirs.glob("*.nii.gz")):
        a, b = (
            np.asarray(nibabel.load(p).dataobj).astype(np.uint8) for p in (ours / path.name, path)
        )
        present = {
            name: value
            for name, value in labels.items()
            if (a == value).any() or (b == value).any()
        }
        scores = dice_per_label(a, b, present)
        cases[path.name] = {
            "voxels_equal": float((a == b).mean()),
            "dice": {name: round(score, 5) for name, score in scores.items()},
            "labelled_voxels": {name: int((b == value).sum()) for name, value in present.items()},
        }
    return cases


def first_of(scans: Path, folder: Path) -> Path:
    """Return a folder with the first scan alone."""
    folder.mkdir()
    scan = min(scans.glob("*_0000.nii.gz"))
    (folder / scan.name).symlink_to(scan.resolve())
    return folder


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("scans", type=Path)
    parser.add_argument("--nnunet", required=True)
    arguments = parsed(parser, line)
    flags = ["-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        nnunet_folder.main(arguments.predictor, scratch / "result")
        import_predictor(scratch / "result", scratch / "imported", ImportOptions(name="imported"))
        scans = first_of(arguments.scans, scratch / "first") if arguments.quick else arguments.scans
        folders = ["-i", scans, "-o", scratch / "theirs", "-m", scratch / "result"]
        subprocess.run([arguments.nnunet, *folders, *flags], check=True, stdout=subprocess.DEVNULL)
        predictor = find_predictor(str(scratch / "imported"))
        missing = left_out(("fp32", "bf16"))
        for precision in [each for each in ("fp32", "bf16") if each not in missing]:
            options = Options(mode="exact", device="cpu", precision=precision, mirroring=False)
            segment_folder(predictor, scans, scratch / precision, options)
        labels = dict(predictor.spec.labels)
        result = {
            "sha256": find_predictor(arguments.predictor).spec.weights.sha256,
            "flarekit_fp32_against_nnunetv2": compare(scratch / "fp32", scratch / "theirs", labels),
        }
        if missing:
            result["left_out"] = missing
        else:
            result["flarekit_bf16_against_fp32"] = compare(
                scratch / "bf16", scratch / "fp32", labels
            )
    write(arguments.output / "agree_nnunet.json", result)
    for title in ("flarekit_fp32_against_nnunetv2", "flarekit_bf16_against_fp32"):
        for case, values in result.get(title, {}).items():
            least = min(values["dice"].values())
            print(title, case, f"{values['voxels_equal']:.6f}", f"least Dice {least}")


if __name__ == "__main__":
    main()
