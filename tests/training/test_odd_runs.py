"""Runs that were cut off or changed, and trainings that diverged: named, and nothing is made."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
import torch

from flarekit.core.errors import InputError, OutputError, WeightsMismatchError
from flarekit.core.files import files_together
from flarekit.models import load_weights, save_weights
from flarekit.training import state as states
from flarekit.training.export import export_network, export_predictor
from flarekit.training.networks import as_trained
from flarekit.training.run_record import keep_recipe
from flarekit.training.state import averaged_network, save_state


@pytest.fixture
def run(recipe, tmp_path):
    """Return the folder of a run that has just begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    state = states.begun_state(recipe, folder, None, torch.device("cpu"), torch.float32)
    state.step, state.seconds = 3, 60.0
    save_state(state, folder / "checkpoint.pt")
    keep_recipe(recipe, folder)
    return folder


@pytest.mark.parametrize("cut", [1, 300, 20_000])
def test_a_checkpoint_that_was_cut_off_is_named_and_is_no_traceback(recipe, run, tmp_path, cut):
    path = run / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read: it is damaged"):
        averaged_network(recipe, path)
    with pytest.raises(InputError, match="is damaged"):
        export_predictor(run, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": -1}, "its 'step' is -1, which no training writes"),
        ({"step": 1.5}, "its 'step' is 1.5, which no training writes"),
        ({"step": True}, "its 'step' is True, which no training writes"),
        ({"seconds": math.nan}, "its 'seconds' is nan, which no training writes"),
        ({"seconds": math.inf}, "its 'seconds' is inf, which no training writes"),
        ({"seconds": "1"}, "its 'seconds' is '1', which no training writes"),
        ({"start": 3}, "its 'start' is not what a training writes"),
        ({"devices": "cpu"}, "its 'devices' is not what a training writes"),
        ({"optimiser": {}}, "is not this recipe's checkpoint"),
        ({"average": {}}, "is not this recipe's checkpoint"),
        ({"average": "x"}, "is not this recipe's checkpoint"),
    ],
)
def test_a_field_of_a_checkpoint_that_no_training_writes_is_named(recipe, run, changes, words):
    path = run / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, **changes}, path)
    with pytest.raises(InputError, match=rf"checkpoint\.pt: {words}"):
        averaged_network(recipe, path)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["network", "average", "optimiser", "step", "seconds"])
def test_a_field_that_a_checkpoint_lacks_is_named(recipe, run, name):
    path = run / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content[name]
    torch.save(content, path)
    with pytest.raises(InputError, match=f"it has no '{name}'"):
        averaged_network(recipe, path)


@pytest.mark.parametrize(("value", "words"), [(math.nan, "NaN"), (math.inf, "infinite numbers")])
def test_a_training_that_diverged_is_not_exported_and_what_was_there_stays(
    recipe, tmp_path, value, words
):
    network = as_trained(recipe)
    export_network(recipe, network, {"steps": 1}, tmp_path / "made")
    before = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    with pytest.raises(WeightsMismatchError, match=rf"model\.safetensors: is not .* {words}"):
        export_network(recipe, network, {"steps": 2}, tmp_path / "made")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == before
    with pytest.raises(WeightsMismatchError, match=str(tmp_path / "new" / "model.safetensors")):
        export_network(recipe, network, {"steps": 2}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("running_var", -1.0, "running_var holds a negative variance"),
        ("running_var", math.inf, "running_var holds infinite numbers"),
        ("running_mean", math.nan, "running_mean holds NaN"),
    ],
)
def test_statistics_that_cannot_be_are_neither_written_nor_read(tmp_path, name, value, words):
    norm = torch.nn.Sequential(torch.nn.BatchNorm3d(2))
    path = tmp_path / "model.safetensors"
    save_weights(norm, path, dtype=torch.float32)
    content = path.read_bytes()
    getattr(norm[0], name)[1] = value
    with pytest.raises(WeightsMismatchError, match=f"0.{words}"):
        save_weights(norm, path, dtype=torch.float32)
    assert path.read_bytes() == content
    from safetensors.torch import save

    path.write_bytes(save(norm.state_dict()))
    with pytest.raises(WeightsMismatchError, match=words):
        load_weights(torch.nn.Sequential(torch.nn.BatchNorm3d(2)), path)


def test_a_disk_that_is_full_in_the_middle_of_an_export_leaves_the_predictor_as_it_was(
    run, tmp_path, monkeypatch
):
    made = tmp_path / "made"
    export_predictor(run, made)
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    def full(path: Path, _: bytes) -> None:
        raise OutputError(f"{path}: cannot be written: No space left", fix="make space")

    monkeypatch.setattr("flarekit.core.spec.write_atomically", full)
    with pytest.raises(OutputError, match=f"^{made}/predictor.toml: cannot be written"):
        export_predictor(run, made)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    with pytest.raises(OutputError):
        export_predictor(run, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_files_that_belong_together_come_together_and_the_one_that_speaks_of_them_last(
    tmp_path, monkeypatch
):
    order = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append(b.name), replace(a, b))[1])
    with files_together(tmp_path / "made", last="b.toml") as made:
        for name in ("b.toml", "z", "a"):
            (made / name).write_text(name)
        assert not (tmp_path / "made" / "a").exists()
    assert order == ["a", "z", "b.toml"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a", "b.toml", "z"]


def test_files_of_which_one_cannot_be_written_leave_those_that_were_there(tmp_path):
    def write_one() -> None:
        with files_together(tmp_path, last="a") as made:
            (made / "a").write_text("other")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_text("a")
    with pytest.raises(OutputError, match=f"{tmp_path}: cannot be written: No space left"):
        write_one()
    assert (tmp_path / "a").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
