"""Somebody's plans, dataset files and checkpoints: taken, or refused naming file and field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from flarekit import models
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.spec import read_spec
from flarekit.importing import import_predictor
from flarekit.segmentation.predictors import build_networks, find_predictor
from tests.importing.test_importing import OPTIONS, network_of, result_folder


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def checkpoint(result, change, fold=0):
    path = result / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


@pytest.fixture(scope="module")
def stored_result(tmp_path_factory):
    return result_folder(tmp_path_factory.mktemp("stored") / "result", network_of("nnunet"))


@pytest.fixture
def result(stored_result, tmp_path):
    return Path(shutil.copytree(stored_result, tmp_path / "result"))


def imported(result, folder):
    import_predictor(result, folder, OPTIONS)
    return find_predictor(str(folder))


def conf(plans):
    return plans["configurations"]["3d_fullres"]


def kwargs(plans):
    return conf(plans)["architecture"]["arch_kwargs"]


PLANS = [
    (lambda p: p.pop("configurations"), "configurations is missing"),
    (lambda p: p.update(configurations=[]), "configurations"),
    (lambda p: p.update(configurations={"3d_fullres": 3}), "configurations.3d_fullres"),
    (lambda p: conf(p).pop("patch_size"), "configurations.3d_fullres.patch_size is missing"),
    (lambda p: conf(p).update(patch_size="big"), "configurations.3d_fullres.patch_size"),
    (lambda p: conf(p).update(patch_size=[8, 16, 0]), "configurations.3d_fullres.patch_size.2"),
    (lambda p: conf(p).update(patch_size=[8, True, 16]), "patch_size.1: is true"),
    (lambda p: conf(p).update(patch_size=[16]), "patch_size"),
    (lambda p: conf(p).update(spacing=None), "configurations.3d_fullres.spacing"),
    (lambda p: conf(p).update(spacing=[1, 1, -1]), "spacing.2"),
    (lambda p: conf(p).update(spacing=[1, 1]), "spacing has 2 numbers, patch_size 3"),
    (lambda p: conf(p).pop("normalization_schemes"), "normalization_schemes is missing"),
    (lambda p: conf(p).update(normalization_schemes="CT"), "normalization_schemes"),
    (lambda p: conf(p).update(normalization_schemes=["ZScoreNormalization"] * 2), "2 entries"),
    (lambda p: conf(p).update(normalization_schemes=["MyNorm"]), "MyNorm"),
    (lambda p: conf(p).update(use_mask_for_norm=[False, False]), "use_mask_for_norm has 2"),
    (lambda p: conf(p).update(resampling_fn_data="mine"), "resampling function 'mine'"),
    (lambda p: conf(p).update(resampling_fn_data_kwargs=[1]), "resampling_fn_data_kwargs"),
    (lambda p: conf(p).update(resampling_fn_data_kwargs={"order": 9}), "order"),
    (lambda p: conf(p).update(architecture=[]), "architecture"),
    (lambda p: conf(p)["architecture"].pop("network_class_name"), "network_class_name is missing"),
    (lambda p: conf(p)["architecture"].pop("arch_kwargs"), "arch_kwargs is missing"),
    (lambda p: conf(p).pop("architecture"), "UNet_base_num_features is missing"),
    (lambda p: kwargs(p).pop("strides"), "architecture.arch_kwargs.strides is missing"),
    (lambda p: kwargs(p).update(strides=[[1, 1, 1]]), "strides has 1 entries for 3 stages"),
    (lambda p: kwargs(p).update(strides=[[1, 1]] * 3), "strides of 2 axes for a patch of 3"),
    (lambda p: kwargs(p).update(n_stages="many"), "arch_kwargs.n_stages"),
    (lambda p: kwargs(p).update(features_per_stage=[8]), "features_per_stage has 1 entries"),
    (lambda p: kwargs(p).pop("n_conv_per_stage"), "n_conv_per_stage is missing"),
    (lambda p: kwargs(p).update(features_per_stage=[9999] * 3), "that one has more than"),
    (lambda p: kwargs(p).update(n_stages=10_000), "arch_kwargs.n_stages"),
    (lambda p: kwargs(p).update(n_conv_per_stage=10_000), "arch_kwargs.n_conv_per_stage"),
    (lambda p: kwargs(p).update(kernel_sizes=[[9999] * 3] * 3), "arch_kwargs.kernel_sizes"),
    (lambda p: conf(p).update(patch_size=[8, 17, 16]), "17 voxels, no multiple of 4"),
    (lambda p: conf(p).update(spacing=[1e-300, 1, 1]), "grid.spacing_mm_ZYX.0"),
    (lambda p: conf(p).update(spacing=[1e300, 1, 1]), "grid.spacing_mm_ZYX.0"),
    (lambda p: kwargs(p).update(norm_op_kwargs={"eps": 0.1}), "norm_op_kwargs"),
    (lambda p: kwargs(p).update(nonlin_kwargs={"negative_slope": 0.2}), "nonlin_kwargs"),
    (lambda p: kwargs(p).update(conv_op=7), "conv_op"),
    (lambda p: conf(p).update(inherits_from="3d_fullres"), "inherit from each other"),
    (lambda p: conf(p).update(inherits_from="gone"), "no configuration 'gone'"),
    (lambda p: conf(p).update(inherits_from=4), "no configuration 4"),
    (lambda p: conf(p).update(previous_stage="3d_lowres"), "cascade"),
    (lambda p: p.update(transpose_forward=[0, 1]), "transpose_forward"),
    (lambda p: p.update(transpose_forward=[0, 0, 1]), "transpose_forward is [0, 0, 1]"),
    (lambda p: p.pop("foreground_intensity_properties_per_channel"), "per_channel.0 is missing"),
    (lambda p: p.update(foreground_intensity_properties_per_channel={"0": {"mean": 1}}),
     "foreground_intensity_properties_per_channel.0.percentile_00_5 is missing"),
    (lambda p: p.update(foreground_intensity_properties_per_channel={"0": 5}), "per_channel.0"),
    (lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(mean="x"), "0.mean"),
    (lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(percentile_99_5=-500),
     "percentile_00_5 is not below percentile_99_5"),
    (lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(std=float("nan")),
     "NaN is not a number"),
    (lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(std=-80), "0.std"),
]  # fmt: skip
DATASET = [
    (lambda d: d.update(labels={"1" * 5000: "a", "1": "b"}), "is not a value of a mask"),
    (lambda d: d.update(labels={"0": "background", "1": "a", "300": "b"}), "labels.300"),
    (lambda d: d.update(labels={"background": 1, "a": 2}), "background is 0"),
    (lambda d: d.update(labels={"background": 0, "air": 0, "a": 1}), "background and air all have"),
    (lambda d: d.update(labels={"background": 0, "a\x1bb": 1, "b": 2}), "cannot be printed"),
    (lambda d: d.pop("labels"), "labels is missing"),
    (lambda d: d.update(labels=None), "labels"),
    (lambda d: d.update(labels=["liver"]), "labels"),
    (lambda d: d.update(labels={}), "labels"),
    (lambda d: d.update(labels={"background": 0}), "nothing but background"),
    (lambda d: d.update(labels={"background": 0, "liver": "one"}), "labels.liver: is 'one'"),
    (lambda d: d.update(labels={"background": 0, "liver": 1.5}), "labels.liver"),
    (lambda d: d.update(labels={"background": 0, "liver": None}), "labels.liver"),
    (lambda d: d.update(labels={"background": 0, "liver": True}), "labels.liver"),
    (lambda d: d.update(labels={"background": 0, "a": 1, "b": 3}), "not numbered 1 to 2"),
    (lambda d: d.update(labels={"background": 0, "a b": 1, "a_b": 2}), "a_b is there twice"),
    (lambda d: d.update(labels={"background": 0, " ": 1, "b": 2}), "an empty name"),
    (lambda d: d.update(labels={"background": 0, "a": [1, 2], "b": [2]}), "regions_class_order"),
    (lambda d: d.update(labels={"background": 0, "a": [1, 2], "b": [2]},
                        regions_class_order=[1, "x"]), "regions_class_order"),
    (lambda d: d.pop("channel_names"), "channel_names is missing"),
    (lambda d: d.update(channel_names=["CT"]), "channel_names"),
    (lambda d: d.update(channel_names={}), "channel_names"),
    (lambda d: d.update(channel_names={"0": 5}), "channel_names.0"),
    (lambda d: d.update(channel_names={"1": "CT"}), "channel_names are numbered 1"),
    (lambda d: d.update(channel_names={"0": "CT", "1": "PET"}), "2 channels of dataset.json"),
]  # fmt: skip
CHECKPOINT = [
    (lambda c: c.pop("network_weights"), "has no network_weights (it holds trainer_name"),
    (lambda c: c.update(network_weights=None), "has no network_weights"),
    (lambda c: c.update(network_weights=[]), "network_weights holds a list"),
    (lambda c: c.update(network_weights={}), "network_weights holds nothing"),
    (lambda c: c["network_weights"].update(extra=5), "network_weights.extra is a int"),
    (lambda c: c["network_weights"].popitem(), "is missing"),
    (lambda c: weights(c, lambda v: v.to_sparse()), "of the layout sparse"),
    (lambda c: weights(c, lambda v: v.to(torch.complex64)), "is a tensor of complex64"),
    (lambda c: weights(c, lambda v: v.to("meta")), "has a shape and no values"),
    (lambda c: weights(c, lambda v: v[:1].clone().expand_as(v)), "larger than what the file holds"),
    (lambda c: weights(c, lambda v: v.to(torch.int32)), "is int32, not a floating-point"),
    (lambda c: weights(c, lambda v: v.double() * 1e300), "holds numbers beyond float32"),
    (lambda c: c.update(init_args=[1]), "init_args"),
    (lambda c: c.update(init_args={"configuration": ["2d"]}), "init_args.configuration"),
    (lambda c: c.update(init_args={"configuration": "2d"}), "no configuration '2d'"),
    (lambda c: c.update(trainer_name=4), "trainer_name"),
    (lambda c: c.update(inference_allowed_mirroring_axes=(0, 7)), "mirroring_axes"),
    (lambda c: c.update(inference_allowed_mirroring_axes="all"), "mirroring_axes"),
]


def weights(content, change):
    content["network_weights"] = {k: change(v) for k, v in content["network_weights"].items()}


def refused(result, tmp_path, file, words):
    with pytest.raises(FlarekitError) as caught:
        import_predictor(result, tmp_path / "made", OPTIONS)
    assert words in caught.value.message
    assert file in caught.value.message
    assert caught.value.fix
    assert not (tmp_path / "made").exists()


@pytest.mark.quick(3)
@pytest.mark.parametrize(("change", "words"), PLANS)
def test_plans_that_are_a_little_off_are_refused_by_field(result, tmp_path, change, words):
    changed(result / "plans.json", change)
    refused(result, tmp_path, "spacing" if "grid." in words else "plans.json", words)


@pytest.mark.parametrize(("change", "words"), DATASET)
def test_dataset_files_that_are_a_little_off_are_refused_by_field(result, tmp_path, change, words):
    changed(result / "dataset.json", change)
    refused(result, tmp_path, "labels" if "printed" in words else "dataset.json", words)


@pytest.mark.quick(3)
@pytest.mark.parametrize(("change", "words"), CHECKPOINT)
def test_checkpoints_that_are_a_little_off_are_refused_by_field(result, tmp_path, change, words):
    checkpoint(result, change)
    file = "plans.json" if "no configuration" in words else "checkpoint_final.pth"
    refused(result, tmp_path, file, words)


def test_weights_that_are_no_numbers_are_refused(result, tmp_path):
    def spoil(content):
        next(iter(content["network_weights"].values())).flatten()[0] = float("nan")

    checkpoint(result, spoil)
    refused(result, tmp_path, "checkpoint_final.pth", "holds NaN or infinity")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "null", "\xff", "[" * 50_000])
def test_files_that_are_no_json_objects_are_named(result, tmp_path, name, text):
    (result / name).write_bytes(text.encode("latin-1"))
    refused(result, tmp_path, name, name)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_byte_order_mark_does_no_harm(result, tmp_path, name):
    (result / name).write_bytes(b"\xef\xbb\xbf" + (result / name).read_bytes())
    assert imported(result, tmp_path / "made").spec.labels == {"organ": 1, "small_lesion": 2}


TAKEN = [
    lambda c: c.pop("trainer_name"),
    lambda c: c.pop("init_args"),
    lambda c: c.update(init_args=None),
    lambda c: c.pop("inference_allowed_mirroring_axes"),
    lambda c: c.update(inference_allowed_mirroring_axes=None),
    lambda c: c.update(inference_allowed_mirroring_axes=[0]),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize("change", TAKEN)
def test_what_a_checkpoint_need_not_say_may_be_absent(tmp_path, change):
    result = result_folder(tmp_path / "T__P__3d_fullres", network_of("nnunet"))
    checkpoint(result, change)
    assert build_networks(imported(result, tmp_path / "made"))


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_names_of_parallel_and_compiled_networks_are_taken(result, tmp_path, prefix):
    network = network_of("nnunet")

    def wrap(content):
        weights = content["network_weights"]
        content["network_weights"] = {f"{prefix}{key}": each for key, each in weights.items()}

    checkpoint(result, wrap)
    (found,) = build_networks(imported(result, tmp_path / "made"))
    own = models.own_tensors(network)
    assert all(torch.equal(own[key], each) for key, each in models.own_tensors(found).items())


def test_one_name_with_and_without_a_prefix_is_refused(result, tmp_path):
    def double(content):
        key, value = next(iter(content["network_weights"].items()))
        content["network_weights"][f"module.{key}"] = value

    checkpoint(result, double)
    refused(result, tmp_path, "checkpoint_final.pth", "twice")


def test_labels_of_nnunet_1_are_turned_round(result, tmp_path):
    old = {"0": "background", "1": "liver", "2": "left kidney"}
    changed(result / "dataset.json", lambda d: d.update(labels=old))
    changed(result / "dataset.json", lambda d: d.update(modality=d.pop("channel_names")))
    spec = imported(result, tmp_path / "made").spec
    assert spec.labels == {"liver": 1, "left_kidney": 2}
    assert [channel.name for channel in spec.channels] == ["CT"]


def test_the_intensities_of_an_early_version_are_found_by_their_older_name(result, tmp_path):
    new, old = (f"foreground_intensity_properties_{by}" for by in ("per_channel", "by_modality"))
    changed(result / "plans.json", lambda p: p.update({old: p.pop(new)}))
    assert imported(result, tmp_path / "made").spec.channels[0].intensity.high_hu == 250


def test_one_number_stands_for_all_stages_and_axes(tmp_path):
    network = network_of("nnunet", features_per_stage=[8, 8, 8])
    result = result_folder(tmp_path / "result", network)
    once = {"features_per_stage": 8, "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    changed(result / "plans.json", lambda p: kwargs(p).update(once))
    assert build_networks(imported(result, tmp_path / "made"))


def test_the_fold_of_all_cases_is_no_member_of_an_ensemble(tmp_path, caplog):
    result = result_folder(tmp_path / "result", network_of("nnunet"), folds=2)
    (result / "fold_0").rename(result / "fold_10")
    (result / "fold_1").rename(result / "fold_2")
    other = result_folder(tmp_path / "other", network_of("nnunet"))
    (other / "fold_0").rename(result / "fold_all")
    spec = imported(result, tmp_path / "made").spec
    assert spec.provenance["fold_names"] == ["2", "10"]
    assert "fold_all" in caplog.text
    chosen = type(OPTIONS)(name="x", folds=("all",))
    import_predictor(result, tmp_path / "all", chosen)
    assert read_spec(tmp_path / "all").spec.provenance["fold_names"] == ["all"]
    both = type(OPTIONS)(name="x", folds=("2", "all"))
    with pytest.raises(InputError, match="fold_all is not a member"):
        import_predictor(result, tmp_path / "both", both)


def test_the_fold_of_all_cases_is_taken_where_it_is_alone(result, tmp_path):
    (result / "fold_0").rename(result / "fold_all")
    assert imported(result, tmp_path / "made").spec.provenance["fold_names"] == ["all"]


def test_a_fold_that_is_named_twice_is_one_member(result, tmp_path):
    chosen = type(OPTIONS)(name="x", folds=("0", "0"))
    import_predictor(result, tmp_path / "made", chosen)
    assert read_spec(tmp_path / "made").spec.ensemble == ()


def state_of(**arguments):
    torch.manual_seed(0)
    network = models.create("mpu_net", input_channels=1, num_classes=2, **arguments)
    own = models.own_tensors(network)
    keys = models.official_keys_of("mpu_net", network)
    return network, {key: own[ours].clone() for ours, (key,) in keys.items()}


def test_mpu_net_s_baseline_has_its_authors_names_and_is_imported(tmp_path):
    network, state = state_of(baseline=True)
    shapes = {key: tuple(value.shape[:2]) for key, value in state.items() if "weight" in key}
    assert shapes == {
        **{f"encoder{i}.weight": (16 * 2**i, 1 if i == 1 else 8 * 2**i) for i in range(1, 5)},
        "decoder1.weight": (128, 256),
        "decoder2.weight": (64, 128),
        "decoder3.weight": (32, 64),
        "decoder4.weight": (2, 32),
        "map1.0.weight": (2, 256),
        "map2.0.weight": (2, 128),
        "map3.0.weight": (2, 64),
        "map4.0.weight": (2, 2),
    }
    torch.save(
        {"net": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "x.pth"
    )
    (found,) = build_networks(imported(tmp_path / "x.pth", tmp_path / "made"))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(found.eval()(image), network.eval()(image))


@pytest.mark.quick(2)
@pytest.mark.parametrize("wrapper", ["net", "state_dict", "model_state_dict", "model", None])
def test_a_state_dict_may_be_wrapped_as_trainers_do(tmp_path, wrapper):
    _, state = state_of(baseline=True)
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "x.pth")
    assert build_networks(imported(tmp_path / "x.pth", tmp_path / "made"))


def test_a_flare23_state_dict_without_its_last_layer_is_one_sentence(tmp_path):
    state = {"encoder.0.weight": torch.zeros(64, 3, 3, 3), "decoder_att1.up.bias": torch.zeros(9)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth: out2\.single_conv\.weight is missing"):
        import_predictor(tmp_path / "x.pth", tmp_path / "made", OPTIONS)
