from __future__ import annotations

import json
import os

import nibabel
import numpy as np
import pytest
import torch

from flarekit import models
from flarekit.core.errors import InputError, PredictorError, WeightsMismatchError
from flarekit.core.spec import read_spec
from flarekit.importing import ImportOptions, import_predictor
from flarekit.importing.checkpoint import load_checkpoint
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import build_networks, find_predictor

TOPOLOGY = {
    "n_stages": 3,
    "features_per_stage": [8, 8, 16],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
}
OPERATORS = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
OPTIONS = ImportOptions(name="imported")
TILE = [8, 16, 16]


def configuration(*, flat_format: bool, class_name: str):
    common = {
        "patch_size": TILE,
        "spacing": [3.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False,
            "order": 3,
            "order_z": 0,
            "force_separate_z": None,
        },
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        },
    }
    if flat_format:
        return common | {
            "UNet_class_name": class_name,
            "UNet_base_num_features": 8,
            "unet_max_num_features": 8,
            "n_conv_per_stage_encoder": TOPOLOGY["n_conv_per_stage"],
            "n_conv_per_stage_decoder": TOPOLOGY["n_conv_per_stage_decoder"],
            "pool_op_kernel_sizes": TOPOLOGY["strides"],
            "conv_kernel_sizes": TOPOLOGY["kernel_sizes"],
        }
    topology = dict(TOPOLOGY)
    if class_name == "ResidualEncoderUNet":
        topology["n_blocks_per_stage"] = topology.pop("n_conv_per_stage")
    return common | {
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{class_name}",
            "arch_kwargs": topology | OPERATORS,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }


def result_folder(
    folder,
    network,
    *,
    flat_format=False,
    class_name="PlainConvUNet",
    folds=1,
    trainer="nnUNetTrainer",
    child=False,
):
    """Write what nnU-Net leaves after training."""
    properties = {"mean": 50.0, "std": 80.0, "percentile_00_5": -100.0, "percentile_99_5": 250.0}
    content = configuration(flat_format=flat_format, class_name=class_name)
    configurations = {"3d_fullres": content}
    name = "3d_fullres"
    if child:
        configurations["3d_child"] = {"inherits_from": "3d_fullres"}
        name = "3d_child"
    plans = {
        "dataset_name": "Dataset001_X",
        "transpose_forward": [0, 1, 2],
        "configurations": configurations,
        "foreground_intensity_properties_per_channel": {"0": properties},
    }
    labels = {"background": 0, "organ": 1, "small lesion": 2}
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"})
    )
    for fold in range(folds):
        state = {
            k: v + fold * 0.01 if v.is_floating_point() else v
            for k, v in network.state_dict().items()
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(
            {
                "network_weights": state,
                "trainer_name": trainer,
                "init_args": {"plans": plans, "configuration": name, "fold": fold},
                "logging": {"train_losses": [np.float32(0.5), np.float64(0.25)]},
                "_best_ema": np.float64(0.3),
                "inference_allowed_mirroring_axes": (0, 1, 2),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder


def network_of(name, **extra):
    torch.manual_seed(0)
    topology = dict(TOPOLOGY)
    if "features_per_stage" in extra:
        topology["features_per_stage"] = extra.pop("features_per_stage")
    return models.create(name, input_channels=1, num_classes=3, **topology, **extra)


CASES = [
    ("nnunet", {}, {}),
    ("nnunet", {"residual": True}, {"class_name": "ResidualEncoderUNet"}),
    ("nnunet", {}, {"child": True}),
    ("umamba", {}, {"trainer": "nnUNetTrainerUMambaBot"}),
    ("umamba", {"mamba": "enc", "input_size": TILE}, {"trainer": "nnUNetTrainerUMambaEnc"}),
    ("att_umamba", {}, {"trainer": "nnUNetTrainerUMambaBot"}),
    ("mamba_clinix", {}, {"trainer": "nnUNetTrainerMambaClinix"}),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize(("name", "extra", "how"), CASES)
def test_result_folders_become_predictors_with_the_same_weights(tmp_path, name, extra, how):
    network = network_of(name, **extra)
    import_predictor(result_folder(tmp_path / "result", network, **how), tmp_path / "w", OPTIONS)
    predictor = find_predictor(str(tmp_path / "w"))
    assert predictor.spec.architecture.name == name
    assert predictor.spec.grid.mirror_axes == (0, 1, 2)
    assert predictor.spec.labels == {"organ": 1, "small_lesion": 2}
    (ours,) = build_networks(predictor)
    image = torch.randn(1, 1, *TILE)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(image), network.eval()(image))


def test_old_plans_without_an_architecture_block_are_read(tmp_path):
    network = network_of("umamba", features_per_stage=[8, 8, 8])
    result_folder(tmp_path / "result", network, flat_format=True)
    import_predictor(tmp_path / "result", tmp_path / "w", OPTIONS)
    (ours,) = build_networks(find_predictor(str(tmp_path / "w")))
    assert models.own_tensors(ours).keys() == models.own_tensors(network).keys()


def test_folds_become_an_ensemble_and_can_be_chosen(tmp_path):
    result_folder(tmp_path / "result", network_of("nnunet"), folds=3)
    import_predictor(tmp_path / "result", tmp_path / "all", OPTIONS)
    assert len(build_networks(find_predictor(str(tmp_path / "all")))) == 3
    chosen = ImportOptions(name="imported", folds=("2",))
    import_predictor(tmp_path / "result", tmp_path / "one", chosen)
    assert len(build_networks(find_predictor(str(tmp_path / "one")))) == 1
    with pytest.raises(InputError, match="fold_7"):
        import_predictor(
            tmp_path / "result", tmp_path / "none", ImportOptions(name="imported", folds=("7",))
        )


@pytest.mark.long
def test_an_imported_ensemble_segments_a_scan(tmp_path, write_scan):
    result_folder(tmp_path / "result", network_of("nnunet"), folds=2)
    import_predictor(tmp_path / "result", tmp_path / "w", OPTIONS)
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz")
    for mirroring in (False, True):
        options = Options(mode="exact", device="cpu", precision="fp32", mirroring=mirroring)
        predictor = find_predictor(str(tmp_path / "w"))
        record = segment_folder(predictor, tmp_path / "in", tmp_path / "out", options)
        assert not record.failed
        assert record.cases[0].tiles.runs == (8 if mirroring else 1)
    assert nibabel.load(tmp_path / "out" / "a.nii.gz").shape == (14, 20, 9)


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["architecture"]["arch_kwargs"].update(norm_op="torch.nn.BatchNorm3d"),
            "norm_op",
        ),
        (lambda c: c["architecture"].update(network_class_name="x.Primus"), "Primus"),
        (lambda c: c.update(normalization_schemes=["MyNorm"]), "MyNorm"),
        (lambda c: c.update(resampling_fn_data="resample_torch"), "resample_torch"),
        (lambda c: c.update(previous_stage="3d_lowres"), "cascade"),
    ],
)
def test_plans_that_are_not_supported_are_named(tmp_path, change, words):
    folder = result_folder(tmp_path / "result", network_of("nnunet"))
    edit_json(folder / "plans.json", lambda plans: change(plans["configurations"]["3d_fullres"]))
    with pytest.raises(PredictorError, match=words):
        import_predictor(folder, tmp_path / "w", OPTIONS)
    assert not (tmp_path / "w").exists()


def test_regions_paint_one_over_the_other(tmp_path):
    torch.manual_seed(0)
    network = models.create("nnunet", input_channels=1, num_classes=2, **TOPOLOGY)
    folder = result_folder(tmp_path / "result", network)
    edit_json(
        folder / "dataset.json",
        lambda d: d.update(
            labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]
        ),
    )
    import_predictor(folder, tmp_path / "w", OPTIONS)
    spec = find_predictor(str(tmp_path / "w")).spec
    assert spec.labels == {"whole": 1, "core": 2}
    assert spec.class_values == (1, 2)
    edit_json(folder / "dataset.json", lambda d: d.update(regions_class_order=[1]))
    with pytest.raises(PredictorError, match="regions_class_order"):
        import_predictor(folder, tmp_path / "v", OPTIONS)


def test_missing_pieces_are_named(tmp_path):
    folder = result_folder(tmp_path / "result", network_of("nnunet"))
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match="dataset.json"):
        import_predictor(folder, tmp_path / "w", OPTIONS)
    with pytest.raises(InputError, match=r"no plans\.json"):
        import_predictor(tmp_path / "result" / "fold_0", tmp_path / "w", OPTIONS)
    with pytest.raises(InputError, match="one fold"):
        import_predictor(folder / "fold_0" / "checkpoint_final.pth", tmp_path / "w", OPTIONS)


def test_weights_of_another_network_are_refused(tmp_path):
    other = network_of("nnunet", features_per_stage=[8, 16, 16])
    result_folder(tmp_path / "result", other)
    with pytest.raises(WeightsMismatchError, match="not"):
        import_predictor(tmp_path / "result", tmp_path / "w", OPTIONS)


@pytest.mark.long(1)
@pytest.mark.parametrize("attention", [True, False])
def test_the_flare23_state_dict_keeps_its_outputs_on_one_channel(tmp_path, attention):
    torch.manual_seed(0)
    theirs = models.create(
        "attention_unet", num_classes=5, attention=attention, batch_statistics=True
    ).eval()
    own = models.own_tensors(theirs)
    keys = models.official_keys_of("attention_unet", theirs)
    torch.save(
        {key: own[ours] for ours, all_ in keys.items() for key in all_}, tmp_path / "net.pth"
    )
    import_predictor(tmp_path / "net.pth", tmp_path / "w", OPTIONS)
    predictor = read_spec(tmp_path / "w")
    assert list(predictor.spec.labels) == ["liver", "kidneys", "spleen", "pancreas"]
    (ours,) = build_networks(predictor)
    slices = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.eval()(slices), theirs(slices.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_mpu_net_checkpoint_keeps_its_outputs(tmp_path, prefix):
    torch.manual_seed(0)
    theirs = models.create("mpu_net", input_channels=1, num_classes=2).eval()
    own = models.own_tensors(theirs)
    keys = models.official_keys_of("mpu_net", theirs)
    net = {prefix + key: own[ours] for ours, all_ in keys.items() for key in all_}
    torch.save({"net": net, "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "net.pth")
    import_predictor(tmp_path / "net.pth", tmp_path / "w", OPTIONS)
    predictor = find_predictor(str(tmp_path / "w"))
    assert predictor.spec.labels == {"liver": 1}
    (ours,) = build_networks(predictor)
    image = torch.randn(1, 1, 16, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(image), theirs(image))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_that_wants_to_run_something_is_refused_and_not_run(tmp_path):
    torch.save({"network_weights": {}, "x": Bomb(str(tmp_path / "boom"))}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="refused: loading it would call .*mkdir"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_files_that_are_no_checkpoints_are_named(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match="x.pth"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("kept", [0, 1, 300, 20_000])
def test_a_checkpoint_that_was_cut_off_is_none_and_one_that_cannot_be_opened_says_why(
    kept, tmp_path
):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"x\.pth: is not a PyTorch checkpoint"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_something_else_is_named(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"first keys: conv\.weight"):
        import_predictor(tmp_path / "x.pth", tmp_path / "w", OPTIONS)
    torch.save([1, 2], tmp_path / "y.pth")
    with pytest.raises(InputError, match="holds a list"):
        import_predictor(tmp_path / "y.pth", tmp_path / "w", OPTIONS)
    with pytest.raises(InputError, match="is not there"):
        import_predictor(tmp_path / "z.pth", tmp_path / "w", OPTIONS)
