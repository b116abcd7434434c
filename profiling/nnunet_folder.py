"""Make an nnU-Net v2 result folder from a predictor of ours with nnU-Net's plain 3D U-Net.

    python profiling/nnunet_folder.py abdomen_ct RESULT_FOLDER

For comparisons: nnunetv2 and flarekit then run the same network and weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from flarekit.core.channels import Window
from flarekit.core.spec import PredictorFolder
from flarekit.importing import ImportOptions, import_predictor
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import build_networks, find_predictor

SPLINES = "resample_data_or_seg_to_shape"


def main(name: str, folder: Path) -> None:
    predictor = find_predictor(name)
    spec = predictor.spec
    window = spec.channels[0].intensity
    if spec.architecture.name != "nnunet" or not isinstance(window, Window):
        raise SystemExit(f"{name} is not a CT predictor with nnU-Net's network")
    given = dict(spec.architecture.arguments)
    topology = {k: v for k, v in given.items() if k not in ("input_channels", "num_classes")}
    orders = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(spec.grid.tile_ZYX),
        "spacing": list(spec.grid.spacing_mm_ZYX),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": SPLINES,
        "resampling_fn_seg": SPLINES,
        "resampling_fn_probabilities": SPLINES,
        "resampling_fn_data_kwargs": {**orders, "order": 3},
        "resampling_fn_seg_kwargs": {**orders, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**orders, "order": 1},
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                **topology,
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    properties = {
        "mean": window.mean, "std": window.std, "median": window.mean, "min": window.low_hu,
        "max": window.high_hu, "percentile_00_5": window.low_hu, "percentile_99_5": window.high_hu,
    }  # fmt: skip
    plans = {
        "dataset_name": "Dataset001_Abdomen",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spec.grid.spacing_mm_ZYX),
        "original_median_shape_after_transp": list(spec.grid.tile_ZYX),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": properties},
    }
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **spec.labels},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=2))
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2))
    initial = {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset}
    checkpoint = {
        "network_weights": build_networks(predictor)[0].state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": initial,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def both(name: str, scratch: Path, precisions: Sequence[str]) -> tuple[Path, PredictorFolder]:
    """Return a result folder, and what is imported from it, compiled: the same arithmetic."""
    main(name, scratch / "result")
    import_predictor(scratch / "result", scratch / "imported", ImportOptions(name="imported"))
    predictor = find_predictor(str(scratch / "imported"))
    for precision in precisions:
        compile_predictor(predictor, precision)  # type: ignore[arg-type]
    return scratch / "result", predictor


def folder_of(scans: Sequence[Path], folder: Path) -> Path:
    """Return a folder with links to some scans."""
    folder.mkdir()
    for scan in scans:
        (folder / scan.name).symlink_to(scan.resolve())
    return folder


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
