from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from flarekit.core.errors import (
    PredictorError,
    UsageError,
    WeightsHashError,
    WeightsMismatchError,
    WeightsMissingError,
)
from flarekit.core.files import sha256_of
from flarekit.core.spec import read_spec
from flarekit.models import own_tensors
from flarekit.segmentation.predictors import (
    build_networks,
    find_predictor,
    hash_state,
    networks_of,
    predictor_folders,
)


def edit(predictor, old, new):
    path = predictor.folder / "predictor.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return read_spec(predictor.folder)


def replace_weights(predictor, tensors):
    old = predictor.spec.weights.sha256
    save_file(tensors, predictor.weights)
    return edit(predictor, old, sha256_of(predictor.weights))


@pytest.fixture
def toy_weights(toy, monkeypatch):
    monkeypatch.setenv("FLAREKIT_WEIGHTS", str(toy.folder.parent))
    return toy


def test_a_predictor_is_found_by_name_and_by_folder(toy_weights):
    assert find_predictor("toy").spec.name == "toy"
    assert find_predictor(str(toy_weights.folder)).spec.name == "toy"
    assert "toy" in [folder.name for folder in predictor_folders()]


@pytest.mark.usefixtures("toy_weights")
def test_a_near_miss_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'toy'"):
        find_predictor("tooy")


def test_a_weights_variable_that_names_no_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAREKIT_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="FLAREKIT_WEIGHTS"):
        find_predictor("toy")


def test_the_network_has_exactly_the_stored_weights(toy):
    (network,), stored = build_networks(toy), load_file(toy.weights)
    own = own_tensors(network)
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[name], stored[name]) for name in own)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("num_classes = 3", "num_classes = 4", "num_classes is 4, and the labels.* make 3"),
        (
            "input_channels = 1",
            "input_channels = 2",
            "input_channels is 2, and the channels make 1",
        ),
    ],
)
def test_a_network_of_other_classes_or_channels_is_refused_before_anything_runs(
    toy, old, new, words
):
    edit(toy, old, new)
    with pytest.raises(PredictorError, match=words):
        find_predictor(str(toy.folder))


def test_auxiliary_classes_are_background(toy):
    (network,) = build_networks(toy)
    merged_toy = edit(toy, "lesion = 4\n", "")
    merged_toy = edit(merged_toy, 'convention = "flare"', 'convention = "flare"\nauxiliary = ["a"]')
    (merged,) = build_networks(merged_toy)
    image = torch.randn(2, 1, 8, 16, 16)
    with torch.inference_mode():
        every, kept = network(image).softmax(1), merged(image).softmax(1)
    assert kept.shape[1] == 2
    torch.testing.assert_close(kept[:, 1], every[:, 1])
    assert networks_of(toy).identity != networks_of(merged_toy).identity


def test_auxiliary_classes_may_stay_together_as_one_class(toy):
    (network,) = build_networks(toy)
    grouped_toy = edit(toy, "lesion = 4\n", "")
    grouped_toy = edit(grouped_toy, 'title = "', 'auxiliary = ["a"]\ntitle = "')
    grouped_toy = edit(grouped_toy, "[labels]", '[internal]\ngroup = ["a"]\n\n[labels]')
    assert grouped_toy.spec.class_values == (0, 1, 2)
    (grouped,) = build_networks(grouped_toy)
    image = torch.randn(2, 1, 8, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(grouped(image), network(image))


def test_missing_weights_stop_with_an_error(toy):
    toy.weights.unlink()
    assert hash_state(toy) == "missing"
    with pytest.raises(WeightsMissingError, match="model.safetensors"):
        build_networks(toy)


def test_a_changed_byte_stops_with_an_error(toy):
    content = bytearray(toy.weights.read_bytes())
    content[-1] ^= 1
    toy.weights.write_bytes(content)
    assert hash_state(toy) == "wrong"
    with pytest.raises(WeightsHashError, match="SHA-256"):
        build_networks(toy)


def test_a_missing_tensor_is_named(toy):
    tensors = load_file(toy.weights)
    gone = sorted(tensors)[0]
    del tensors[gone]
    with pytest.raises(WeightsMismatchError, match=f"{gone} is missing"):
        build_networks(replace_weights(toy, tensors))


def test_a_tensor_too_many_is_named(toy):
    tensors = load_file(toy.weights) | {"extra": torch.zeros(1)}
    with pytest.raises(WeightsMismatchError, match="extra is not the network's"):
        build_networks(replace_weights(toy, tensors))


def test_a_tensor_of_another_shape_is_named(toy):
    tensors = load_file(toy.weights)
    name = sorted(tensors)[0]
    tensors[name] = torch.zeros(2, 3, 5)
    with pytest.raises(WeightsMismatchError, match=r"is \[2, 3, 5\]"):
        build_networks(replace_weights(toy, tensors))


def test_a_pickle_is_refused_and_not_run(toy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    torch.save({"a": Bomb()}, toy.weights)
    predictor = edit(toy, toy.spec.weights.sha256, sha256_of(toy.weights))
    with pytest.raises(WeightsMismatchError, match="not a safetensors file"):
        build_networks(predictor)
    assert not (tmp_path / "boom").exists()


def test_arguments_that_make_another_network_stop_with_an_error(toy):
    with pytest.raises(WeightsMismatchError, match="parameters"):
        build_networks(edit(toy, "features_per_stage = [4, 8]", "features_per_stage = [4, 16]"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('convention = "flare"', 'convention = "flair"', "no convention 'flair'"),
        ('name = "nnunet"', 'name = "unet"', "no architecture 'unet'"),
        ('name = "largest_component"', 'name = "largest"', "largest"),
        ('labels = ["organ"]', 'labels = ["liver"]', "liver"),
        ("step = 0.5", "step = 1.5", "grid.step"),
        ("lesion = 4", "lesion = 1", "two labels share one value"),
        ('convention = "flare"', 'convention = "flare"\nauxiliary = ["lesion"]', "named twice"),
        ('title = "', 'titel = "', "titel"),
        ("[labels]", '[internal]\nx = ["organ"]\n\n[labels]', "auxiliary class once"),
    ],
)
def test_facts_that_do_not_hold_together_are_named(toy, old, new, words):
    path = toy.folder / "predictor.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PredictorError, match=words):
        find_predictor(str(toy.folder))


def test_every_shipped_predictor_is_whole_and_has_a_card():
    shipped = list(predictor_folders())
    assert shipped
    for folder in shipped:
        predictor = find_predictor(str(folder))
        assert predictor.spec.name == folder.name
        assert hash_state(predictor) == "ok"
        assert predictor.weights.stat().st_size < 25 * 2**20
        card = predictor.card.read_text()
        assert predictor.spec.weights.sha256 in card


def test_a_list_of_predictors_can_be_read_where_python_prints_it(toy):
    (shown,) = repr((find_predictor(str(toy.folder)),)).splitlines()
    assert shown == f"(PredictorFolder('toy', {toy.title!r}, folder={str(toy.folder)!r}),)"


def test_newly_compiled_networks_are_kept_where_that_is_said_and_in_the_cache_otherwise(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))
    assert networks_of(toy, keep=tmp_path / "own").keep == tmp_path / "own"
    assert networks_of(toy).keep == tmp_path / "cache"
