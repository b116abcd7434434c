"""`flarekit demo`: a phantom CT in; mask, report and picture out, checked against the truth."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console as RichConsole
from rich.table import Table

from flarekit.cli.console import Console
from flarekit.cli.predict import close_run
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.nifti import read_nifti
from flarekit.evaluation.confusion import dice_per_label
from flarekit.phantom import save_phantom
from flarekit.segmentation.folder import Options, Report, segment_folder
from flarekit.segmentation.predictors import find_predictor

_PREDICTOR = "abdomen_ct"


def run_demo(output_dir: Path, seed: int, options: Options, console: Console) -> int:
    """Make `inputs/`, `truth/`, `outputs/` and `report/` in a folder; return the exit code."""
    case_id = f"phantom_{seed}"
    inputs, outputs, report = (output_dir / name for name in ("inputs", "outputs", "report"))
    truth = output_dir / "truth" / f"{case_id}.nii.gz"
    make_folder(inputs)
    make_folder(truth.parent)
    console.say(f"generating phantom CT {seed}")
    with console.spinner("phantom"):
        save_phantom(seed, scan=inputs / f"{case_id}_0000.nii.gz", labels=truth)
    predictor = find_predictor(_PREDICTOR)
    with console:
        record = segment_folder(predictor, inputs, outputs, options, console, Report(report))
    if record.failed:
        return close_run(record, console)
    masks = [read_nifti(path).voxels_ZYX.astype(np.uint8) for path in (outputs / truth.name, truth)]
    scores = dice_per_label(masks[0], masks[1], predictor.spec.labels)
    write_atomically(report / "dice.json", (json.dumps(scores, indent=2) + "\n").encode())
    table = Table("label", "Dice", title=f"{case_id}: mask against the phantom's own truth")
    for name, score in scores.items():
        table.add_row(name.replace("_", " "), f"{score:.3f}")
    RichConsole().print(table)
    console.say(
        f"mask {outputs / truth.name}, picture {report / f'{case_id}.png'}, "
        f"record {report / 'run.json'}"
    )
    return 0
