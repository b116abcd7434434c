"""nnunetv2's own predictor over a folder, one case after the other, its stages timed.

Run by bench_peers.py with the interpreter of an environment that has nnunetv2:
    python profiling/peer_nnunet.py RESULT_FOLDER SCANS MASKS
Prints one JSON object. The arithmetic is nnunetv2's; no worker processes, so that memory is one
process's and no stage waits for another.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(result: Path, scans: Path, masks: Path) -> None:
    began = time.perf_counter()
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stages = {"import": time.perf_counter() - began}

    def timed(stage: str, since: float) -> float:
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - since
        return now

    mark = time.perf_counter()
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(result), (0,), "checkpoint_final.pth")
    mark = timed("load", mark)
    configuration = predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    masks.mkdir(exist_ok=True)
    for scan in sorted(scans.glob("*_0000.nii.gz")):
        mark = time.perf_counter()
        case = preprocessor.run_case(
            [str(scan)], None, predictor.plans_manager, configuration, predictor.dataset_json
        )
        data, properties = case[0], case[-1]
        mark = timed("read and preprocess", mark)
        with torch.inference_mode():
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        mark = timed("tiles", mark)
        export_prediction_from_logits(
            logits.cpu(),
            properties,
            configuration,
            predictor.plans_manager,
            predictor.dataset_json,
            str(masks / scan.name.removesuffix("_0000.nii.gz")),
        )
        mark = timed("export", mark)
    print(json.dumps({stage: round(seconds, 2) for stage, seconds in stages.items()}))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
