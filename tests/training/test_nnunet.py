from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from pydoc import locate

import pytest
import torch

from flarekit import models
from flarekit.core.dataset_json import read_dataset
from flarekit.core.errors import InputError, PredictorError, UsageError
from flarekit.training import nnunet
from flarekit.training.losses import MAYBE, cross_entropy
from flarekit.training.nnunet.networks import PLANNED, try_network
from flarekit.training.nnunet.planning import (
    PlanOptions,
    check_arguments,
    check_labels,
    check_regions,
    configuration_for,
    for_architecture,
    parse_arguments,
    plan,
)
from flarekit.training.nnunet.result import is_ours, read_result
from flarekit.training.nnunet.targets import nnunet_target
from flarekit.training.regimes import REGIMES

PLANS = {
    "dataset_name": "Dataset901_Tiny",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {"patch_size": [40, 72], "architecture": {"arch_kwargs": {}}},
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "patch_size": [20, 36, 36],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.x.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [8, 16, 16],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3]] * 3,
                    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                    "n_conv_per_stage": [2, 2, 2],
                    "n_conv_per_stage_decoder": [2, 2],
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
        },
    },
}
PATCH = [8, 12, 16]


def build(block, **arguments):
    """Build a network as nnU-Net does: by the import path in the plans."""
    kwargs = dict(block["arch_kwargs"])
    for key in block["_kw_requires_import"]:
        if kwargs[key] is not None:
            kwargs[key] = locate(kwargs[key])
    return locate(block["network_class_name"])(
        input_channels=1, num_classes=3, deep_supervision=True, **kwargs, **arguments
    )


@pytest.mark.parametrize(
    ("architecture", "known"),
    [
        ("att_umamba", "mamba"),
        ("umamba", "n_conv_per_stage"),
        ("mamba_clinix", "blocks"),
        ("mpu_net", "width"),
        ("mamba_ahnet", "encoder_mamba"),
        ("unetr", "feature_size"),
        ("nnunet", None),
    ],
)
def test_arguments_that_a_network_does_not_take_are_refused_before_planning(architecture, known):
    check_arguments(architecture, {} if known is None else {known: 1})
    with pytest.raises(UsageError, match=f"{architecture} takes no argument widht"):
        check_arguments(architecture, {"widht": 0.5})


@pytest.mark.parametrize("name", ["num_classes", "input_channels", "input_size"])
def test_arguments_that_the_dataset_or_the_plan_gives_are_refused(name):
    with pytest.raises(UsageError, match=f"{name}: comes from the dataset"):
        check_arguments("umamba", {name: 2})


def described(folder, labels, **further):
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": labels, **further}))
    return read_dataset(path)


def test_labels_that_the_dataset_does_not_name_are_refused_before_planning(tmp_path):
    dataset = described(tmp_path, {"background": 0, "liver": 1, "left kidney": 2})
    check_labels(dataset, ["liver", "left_kidney"])
    with pytest.raises(UsageError, match=r"no label spleen .known: liver"):
        check_labels(dataset, ["spleen"])


def test_regions_are_refused_before_planning_where_the_network_trains_none(tmp_path):
    labels = {"background": 0, "WT": [1, 2], "TC": [1]}
    regions = described(tmp_path, labels, regions_class_order=[2, 1])
    check_regions(regions, "umamba")
    with pytest.raises(InputError, match="has regions, which mpu_net does not train"):
        check_regions(regions, "mpu_net")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mamba_clinix", {"orders": [9, 9, 9]}),
        ("mamba_clinix", {"blocks": ["conv"] * 5}),
        ("mpu_net", {"width": "half"}),
        ("mpu_net", {"paper_parts": ["heads"]}),
    ],
)
def test_an_argument_of_a_wrong_value_is_refused_before_preprocessing(name, arguments):
    def tried(chosen):
        ours = for_architecture(PLANS, name, "3d_fullres", chosen)
        try_network(name, ours["configurations"]["3d_fullres"], 1, 3)

    tried({})
    with pytest.raises(PredictorError, match=f"'{name}' does not take these arguments"):
        tried(arguments)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [name for name in nnunet.TRAINERS if name not in ("nnunet", *models.PEERS)]
)
def test_plans_name_networks_that_nnunet_can_build(name):
    configuration = configuration_for(name, None)
    arguments = {} if name in PLANNED else {"width": 0.25}
    ours = for_architecture(PLANS, name, configuration, arguments)
    assert ours["plans_name"] == f"flarekit_{name}"
    assert list(ours["configurations"]) == [configuration]
    chosen = ours["configurations"][configuration]
    network = build(chosen["architecture"]).train()
    outputs = network(torch.rand(2, 1, *chosen["patch_size"]))
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    finest = outputs[0] if isinstance(outputs, list) else outputs
    assert list(finest.shape) == [2, 3, *chosen["patch_size"]]


def test_plans_stay_nnunet_s_but_for_the_network():
    ours = for_architecture(PLANS, "umamba", "3d_fullres", {})
    chosen = ours["configurations"]["3d_fullres"]
    assert chosen["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert chosen["patch_size"] == [20, 36, 36]
    same = for_architecture(PLANS, "nnunet", "3d_fullres", {})
    assert same["configurations"]["3d_fullres"] == PLANS["configurations"]["3d_fullres"]


def test_mamba_everywhere_knows_the_patch():
    ours = for_architecture(PLANS, "umamba", "3d_fullres", {"mamba": "enc"})
    block = ours["configurations"]["3d_fullres"]["architecture"]
    assert block["arch_kwargs"]["input_size"] == [20, 36, 36]
    assert build(block).encoder.mamba_layers


def test_arguments_of_a_network_are_toml_or_words():
    written = ["mamba=enc", "orders = [2, 3]", "dropout=0.1", 'blocks=["conv", "hgcn"]']
    assert parse_arguments(written) == {
        "mamba": "enc", "orders": [2, 3], "dropout": 0.1, "blocks": ["conv", "hgcn"],
    }  # fmt: skip
    for odd in ("mamba", "=enc", "mamba=", "a b=1"):
        with pytest.raises(UsageError, match="is not an argument"):
            parse_arguments([odd])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("att_umamba", {"mamba": "enc"}),
        ("mamba_clinix", {"blocks": ["hgcn", "conv", "mamba"], "orders": [2, 0, 0]}),
        ("mamba_clinix", {"blocks": ["conv"] * 3}),
        ("mamba_clinix", {"orders": [2, 2, 0]}),
        ("mamba_clinix", {"blocks": ["hgcn"] * 3, "gated_channels": 8}),
        ("mamba_clinix", {}),
    ],
)
def test_a_variant_that_was_planned_and_trained_is_imported_as_that_variant(name, arguments):
    from flarekit.importing.plans import read_configuration

    ours = for_architecture(PLANS, name, "3d_fullres", arguments)
    chosen = ours["configurations"]["3d_fullres"]
    chosen |= {"spacing": [1, 1, 1], "normalization_schemes": ["ZScore"], "patch_size": PATCH}
    if "input_size" in chosen["architecture"]["arch_kwargs"]:
        chosen["architecture"]["arch_kwargs"]["input_size"] = PATCH
    trained = build(chosen["architecture"])
    configuration = read_configuration(ours, "3d_fullres", source=Path("plans.json"))
    own = trained.state_dict()
    found, stated = configuration.architecture(own, input_channels=1, num_classes=3)
    assert found == name
    again = models.create(found, **stated, deep_supervision=True)
    again.load_state_dict(own)
    image = torch.rand(1, 1, *PATCH)
    with torch.inference_mode():
        assert torch.equal(again.eval()(image)[0], trained.eval()(image)[0])


def test_our_own_import_path_works_with_a_topology_alone():
    kept = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage",
            "n_conv_per_stage_decoder")  # fmt: skip
    kwargs = PLANS["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    block = {
        "network_class_name": "flarekit.models.mamba_clinix.create",
        "arch_kwargs": {key: kwargs[key] for key in kept},
        "_kw_requires_import": [],
    }
    assert isinstance(build(block), torch.nn.Module)


def test_operators_that_our_blocks_do_not_have_are_refused():
    from flarekit.training.nnunet.networks import att_umamba

    with pytest.raises(PredictorError, match="nonlin"):
        att_umamba(input_channels=1, num_classes=2, nonlin=torch.nn.ReLU)


def test_configurations_that_a_network_has_not_are_refused():
    with pytest.raises(UsageError, match="use 3d_fullres"):
        configuration_for("mpu_net", "2d")
    with pytest.raises(UsageError, match="3d_lowres"):
        for_architecture(PLANS, "umamba", "3d_lowres", {})


def test_every_architecture_has_a_trainer_and_a_network_that_plans_can_name():
    assert set(nnunet.TRAINERS) == set(models.names()) & set(REGIMES)
    for name in nnunet.TRAINERS:
        found = locate(f"flarekit.training.nnunet.networks.{name}")  # as nnU-Net does
        assert callable(found)
    assert locate("flarekit.training.nnunet.networks.no_such") is None


def test_an_unknown_architecture_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'att_umamba'"):
        nnunet.check_architecture("att_umanba")


@pytest.mark.skipif(find_spec("nnunetv2") is not None, reason="nnU-Net is installed")
def test_without_nnunet_the_extra_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"\[train\]"):
        plan(tmp_path, tmp_path, "umamba", PlanOptions())


def test_a_dataset_not_in_nnunet_s_layout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("flarekit.training.nnunet.planning.check_architecture", lambda _: None)
    with pytest.raises(InputError, match="DatasetNNN_Name"):
        plan(tmp_path, tmp_path / "work", "umamba", PlanOptions())


def test_an_ignored_voxel_costs_nothing():
    target = nnunet_target(torch.tensor([[[[[0, 1, 2]]]]]), 2, ignored=2, unlabelled=[])
    assert target.classes.flatten().tolist() == [0, 1, MAYBE]
    logits = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    cross_entropy(logits, target).backward()
    assert logits.grad[..., 2].abs().sum() == 0


def test_background_may_be_an_organ_that_no_case_has():
    target = nnunet_target(torch.tensor([[[[[0, 1]]]]]), 3, ignored=None, unlabelled=[2])
    assert target.classes.flatten().tolist() == [MAYBE, 1]
    assert target.possible_BK.tolist() == [[True, False, True]]


def write_result(folder, name, trained):
    configuration = configuration_for(name, None)
    result = folder / f"Trainer__flarekit_{name}__{configuration}"
    (result / "fold_0").mkdir(parents=True)
    plans = for_architecture(PLANS, name, configuration, {"width": 0.25})
    (result / "plans.json").write_text(json.dumps(plans))
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "my organ": 2}}
    (result / "dataset.json").write_text(json.dumps(facts))
    content = {
        "network_weights": trained.state_dict(),
        "trainer_name": nnunet.TRAINERS[name],
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(content, result / "fold_0" / "checkpoint_final.pth")
    return result


def read(result):
    plans, dataset = (
        json.loads((result / name).read_text()) for name in ("plans.json", "dataset.json")
    )
    content = torch.load(result / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert is_ours(plans, result)
    return read_result(result, plans, dataset, [content], [content["network_weights"]])


@pytest.mark.long
@pytest.mark.parametrize("name", ["mpu_net", "attention_unet", "mamba_ahnet"])
def test_what_was_trained_is_what_prediction_builds(name, tmp_path):
    trained = models.create(name, input_channels=1, num_classes=3, width=0.25)
    found = read(write_result(tmp_path, name, trained))
    assert found.labels == {"liver": 1, "my_organ": 2}
    assert found.mirror_axes == (0, 1)
    (network,) = found.networks
    again = models.create(name, **found.arguments)
    assert models.own_tensors(again).keys() == models.own_tensors(network).keys()
    tensors = models.own_tensors(trained)
    assert all(torch.equal(tensors[k], v) for k, v in models.own_tensors(network).items())


def test_results_that_another_reader_knows_are_left_to_it(tmp_path):
    result = write_result(tmp_path, "mpu_net", torch.nn.Linear(1, 1))
    plans = json.loads((result / "plans.json").read_text())
    block = plans["configurations"]["3d_fullres"]["architecture"]
    for path in ("dynamic_network_architectures.x.PlainConvUNet",
                 "flarekit.training.nnunet.networks.umamba"):  # fmt: skip
        block["network_class_name"] = path
        assert not is_ours(plans, result)
    for odd in ({}, {"configurations": []}, {"configurations": {"3d_fullres": None}}):
        assert not is_ours(odd, result)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "change",
    [
        lambda dataset, _: dataset.pop("labels"),
        lambda dataset, _: dataset.update(channel_names=None),
        lambda dataset, _: dataset.update(labels={"liver": "one"}),
        lambda _, content: content.pop("trainer_name"),
    ],
)
def test_what_is_missing_in_a_result_folder_is_one_sentence(change, tmp_path):
    result = write_result(tmp_path, "mpu_net", models.create("mpu_net", num_classes=3, width=0.25))
    plans, dataset = (
        json.loads((result / name).read_text()) for name in ("plans.json", "dataset.json")
    )
    content = torch.load(result / "fold_0" / "checkpoint_final.pth", weights_only=True)
    change(dataset, content)
    with pytest.raises(InputError, match="lacks something"):
        read_result(result, plans, dataset, [content], [content["network_weights"]])
