from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.batchnorm import _BatchNorm

from flarekit import save_predictor
from flarekit.core.errors import (
    FlarekitError,
    InputError,
    PredictorError,
    WeightsHashError,
    WeightsMissingError,
)
from flarekit.core.spec import read_spec
from flarekit.core.tables import read_toml
from flarekit.segmentation.predictors import build_networks
from flarekit.training.compact import RunOptions, train
from flarekit.training.curve import Curve
from flarekit.training.export import export_predictor, is_run
from flarekit.training.samples import Pool
from flarekit.training.state import averaged_network
from flarekit.training.validation import Measured
from tests.processor import needs_bf16
from tests.training.conftest import make_case

CPU = {"device": "cpu", "precision": "fp32", "record_every": 2}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def drawn():
    """Let the curve be drawn, which takes longer than such a run."""


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Curve, "draw", lambda _curve: None)


class Clock:
    """Some seconds a step: the trainer looks at it twice."""

    def __init__(self, step_s=1.0):
        self.seconds = 0.0
        self.step_s = step_s

    def __call__(self):
        self.seconds += self.step_s / 2
        return self.seconds


def pools():
    return [Pool(cases=[make_case()], share=1.0)]


def rows_of(run_dir):
    return list(csv.DictReader((run_dir / "curve.csv").read_text().splitlines()))


def steps_of(recipe, run_dir):
    return averaged_network(recipe, run_dir / "checkpoint.pt")[1]["steps"]


@pytest.mark.long
@pytest.mark.usefixtures("drawn")
def test_training_lowers_the_loss_and_leaves_curve_and_recipe(recipe, tmp_path):
    seen = []
    run = tmp_path / "run"
    options = RunOptions(minutes=0.4, **CPU)
    train(recipe, pools(), run, options, progress=lambda *said: seen.append(said), clock=Clock())
    rows = rows_of(run)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert [said[0] for said in seen] == list(range(1, len(seen) + 1))
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "recipe.toml").read_text() == recipe.text
    assert is_run(run)


@pytest.mark.long
def test_a_run_goes_on_where_it_stopped(recipe, tmp_path):
    run = tmp_path / "run"
    train(recipe, pools(), run, RunOptions(minutes=0.1, **CPU), clock=Clock())
    assert steps_of(recipe, run) == 6
    train(recipe, pools(), run, RunOptions(minutes=0.2, **CPU), clock=Clock())
    assert [int(row["step"]) for row in rows_of(run)] == [2, 4, 6, 8, 10, 12]
    train(recipe, pools(), run, RunOptions(minutes=0.2, **CPU), clock=Clock())
    assert steps_of(recipe, run) == 12  # the time is used up


KILLED = """
import sys
from pathlib import Path
from flarekit.training.compact import RunOptions, train
from flarekit.training.recipe import read_recipe
from flarekit.training.samples import Pool
sys.path.insert(0, sys.argv[3])
from tests.processor import needs_bf16
from tests.training.conftest import make_case
options = RunOptions(minutes=9, device="cpu", precision="fp32", checkpoint_every_s=0.0)
recipe = read_recipe(Path(sys.argv[1]))
train(recipe, [Pool(cases=[make_case()], share=1.0)], Path(sys.argv[2]), options,
      progress=lambda step, *_: print(step, flush=True))
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_a_checkpoint_that_goes_on(recipe, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "recipe.toml"), str(run), str(ROOT)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = 0
    for line in child.stdout:
        seen = int(line)
        if seen == 5:
            break
    time.sleep(float(np.random.default_rng(time.time_ns()).uniform(0, 0.1)))  # mid-step, mid-write
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    kept = steps_of(recipe, run)
    assert kept >= seen - 1
    (run / ".1.2.tmp").write_bytes(b"a write that was cut short")
    seconds = torch.load(run / "checkpoint.pt", weights_only=True)["seconds"]
    options = RunOptions(minutes=(seconds + 3) / 60, **CPU)
    train(recipe, pools(), run, options, clock=Clock())
    assert steps_of(recipe, run) > kept
    assert not list(run.glob(".*.tmp"))


@pytest.mark.long
def test_checkpoints_are_less_than_a_minute_apart(recipe, tmp_path):
    run, kept = tmp_path / "run", []

    def look(step, *_):
        path = run / "checkpoint.pt"
        kept.append(step - torch.load(path, weights_only=True)["step"] if path.exists() else step)

    options = RunOptions(minutes=2, **CPU)
    train(recipe, pools(), run, options, progress=look, clock=Clock(step_s=10))
    assert 30 < 10 * max(kept) <= 55  # seconds, by this clock


def test_a_checkpoint_of_another_recipe_is_refused(recipe, make_recipe, tmp_path):
    run = tmp_path / "run"
    train(recipe, pools(), run, RunOptions(minutes=0.02, **CPU), clock=Clock())
    other = make_recipe(("features_per_stage = [4, 8]", "features_per_stage = [4, 6]"))
    with pytest.raises(InputError, match="not this recipe's"):
        train(other, pools(), run, RunOptions(minutes=1, **CPU))
    (run / "checkpoint.pt").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(InputError, match="is damaged"):
        averaged_network(recipe, run / "checkpoint.pt")
    with pytest.raises(InputError, match="train first"):
        averaged_network(recipe, tmp_path / "checkpoint.pt")


@pytest.mark.long
def test_batches_drawn_ahead_train_the_same_network(recipe, tmp_path):
    def two_steps(name, ahead):
        class EnoughError(Exception):
            pass

        def stop(step, *_):
            if step == 3:
                raise EnoughError

        options = RunOptions(minutes=9, ahead=ahead, checkpoint_every_s=0, **CPU)
        with pytest.raises(EnoughError):
            train(recipe, pools(), tmp_path / name, options, progress=stop)
        return torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["step"]

    assert two_steps("now", 0) == two_steps("ahead", 4) == 2


def test_a_loss_that_stays_infinite_ends_the_run(recipe, tmp_path):
    broken = make_case(np.full((1, 24, 24, 24), np.nan))
    with pytest.raises(FlarekitError, match="learning_rate"):
        train(
            recipe, [Pool(cases=[broken], share=1)], tmp_path / "run", RunOptions(minutes=9, **CPU)
        )


def test_an_exported_run_is_a_whole_predictor(recipe, tmp_path):
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.05, **CPU), clock=Clock())
    export_predictor(tmp_path / "run", tmp_path / "tiny")
    predictor = read_spec(tmp_path / "tiny")
    (network,) = build_networks(predictor)
    average, effort = averaged_network(recipe, tmp_path / "run" / "checkpoint.pt")
    assert predictor.spec.provenance["steps"] == effort["steps"]
    assert (tmp_path / "tiny" / "recipe.toml").read_text() == recipe.text
    for ours, theirs in zip(network.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_a_run_may_be_exported_in_eight_bits_and_says_so(recipe, tmp_path):
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.05, **CPU), clock=Clock())
    export_predictor(tmp_path / "run", tmp_path / "tiny")
    export_predictor(tmp_path / "run", tmp_path / "small", eight_bits=True)
    usual, small = (read_spec(tmp_path / name) for name in ("tiny", "small"))
    assert small.spec.provenance["stored_as"] == "int8"
    assert "parameters as int8" in small.card.read_text()
    assert small.weights.stat().st_size < 0.8 * usual.weights.stat().st_size
    for ours, theirs in zip(*(build_networks(each)[0].parameters() for each in (usual, small)),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.01)


def test_a_predictor_that_is_exported_again_keeps_its_locator(recipe, tmp_path):
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.05, **CPU), clock=Clock())
    folder = tmp_path / "tiny"
    export_predictor(tmp_path / "run", folder)
    export_predictor(tmp_path / "run", folder / "locator")
    sha256 = read_spec(folder / "locator").spec.weights.sha256
    facts = folder / "predictor.toml"
    facts.write_text(facts.read_text() + f'\n[locator]\nsha256 = "{sha256}"\nmargin_mm = 7.0\n')
    export_predictor(tmp_path / "run", folder)
    assert read_spec(folder).spec.locator.margin_mm == 7.0
    assert read_spec(folder).locator is not None


TOPOLOGY = """
input_channels = 1
n_stages = 2
features_per_stage = [8, 8]
kernel_sizes = [[3, 3, 3], [3, 3, 3]]
strides = [[1, 1, 1], [2, 2, 2]]
n_conv_per_stage = [2, 1]
num_classes = 3
n_conv_per_stage_decoder = [1]
"""
NETWORKS = {
    "umamba": TOPOLOGY,
    "att_umamba": TOPOLOGY,
    "mamba_clinix": TOPOLOGY,
    "mpu_net": "num_classes = 3\nwidth = 0.25\n",
    "attention_unet": "input_channels = 1\nnum_classes = 3\nwidth = 0.125\n",
    "mamba_ahnet": "num_classes = 3\nwidth = 0.25\nreconstruction = false\n",
}


@pytest.mark.long(3)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_by_its_paper_and_is_exported(name, precision, make_recipe, tmp_path):
    start, end = '[predictor.architecture]\nname = "nnunet"', "[[predictor.channels]]"
    from tests.training.conftest import RECIPE

    old = RECIPE[RECIPE.index(start) : RECIPE.index(end)]
    new = (
        f'[predictor.architecture]\nname = "{name}"\n\n'
        f"[predictor.architecture.arguments]\n{NETWORKS[name]}\n"
    )
    changes = [(old, new), ("batch = 1", f'regime = "{name}"\nbatch = 1')]
    if name in ("attention_unet", "mamba_ahnet"):
        changes.append(("tile_ZYX = [16, 16, 16]", "tile_ZYX = [1, 32, 32]"))
    recipe = make_recipe(*changes)
    losses = []
    train(
        recipe,
        pools(),
        tmp_path / "run",
        RunOptions(minutes=0.05, device="cpu", precision=precision, record_every=1),
        progress=lambda _step, _minutes, loss: losses.append(loss),
        clock=Clock(),
    )
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    export_predictor(tmp_path / "run", tmp_path / "out")
    (network,) = build_networks(read_spec(tmp_path / "out"))
    flat = recipe.flat
    with torch.inference_mode():
        logits = network.eval()(torch.zeros(1, 1, *((16, 16) if flat else (16, 16, 16))))
    assert logits.shape[1] == 3
    normalised = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    assert {int(layer.num_batches_tracked) for layer in normalised} <= set(range(16, 97))


def test_a_curve_forgets_what_came_after_the_checkpoint(tmp_path):
    curve = Curve(tmp_path, [])
    for step in range(1, 5):
        curve.add(float(step))
        curve.add(math.inf)  # left out of the mean
        curve.record(step, 60.0 * step, 0.1)
    again = Curve.resumed(tmp_path, 2)
    again.add(9.0)
    again.record(3, 120.0, 0.1)
    rows = rows_of(tmp_path)
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(1, 1), (2, 2), (3, 9)]


@pytest.mark.gpu
def test_fp16_on_a_gpu_trains_and_resumes(recipe, tmp_path):
    options = {"device": "cuda", "record_every": 2}
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.05, **options))
    first = steps_of(recipe, tmp_path / "run")
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.1, **options))
    assert steps_of(recipe, tmp_path / "run") > first
    rows = rows_of(tmp_path / "run")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


@pytest.mark.long
def test_a_run_may_start_with_a_predictor_s_weights(recipe, tmp_path, caplog):
    options = RunOptions(minutes=0.1, **CPU)
    train(recipe, pools(), tmp_path / "first", options, clock=Clock())
    export_predictor(tmp_path / "first", tmp_path / "made")
    (made,) = build_networks(read_spec(tmp_path / "made"))
    again = RunOptions(minutes=1e-9, start=tmp_path / "made", **CPU)
    network = train(recipe, pools(), tmp_path / "second", again, clock=Clock())
    wanted = dict(made.named_parameters())
    found = {name: value for name, value in network.named_parameters() if name in wanted}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name].float()) for name in found)
    with caplog.at_level("INFO"):
        longer = RunOptions(minutes=0.1, start=tmp_path / "made", **CPU)
        train(recipe, pools(), tmp_path / "second", longer, clock=Clock())
    assert "is used only when a run begins" in caplog.text
    export_predictor(tmp_path / "second", tmp_path / "longer")
    began = read_spec(tmp_path / "longer").spec.provenance["start_sha256"]
    assert began == read_spec(tmp_path / "made").spec.weights.sha256
    assert "start_sha256" not in read_spec(tmp_path / "made").spec.provenance
    assert steps_of(recipe, tmp_path / "second") > 0


@pytest.mark.long
def test_a_card_says_what_cases_were_labelled_in_part(make_recipe, tmp_path):
    said = {}
    for name, labels in {"all": '"liver", "spleen"', "some": '"liver"'}.items():
        table = f'[training.labelled]\n"full*" = [{labels}]\n\n[provenance]'
        recipe = make_recipe(
            ("[provenance]", table), ("batch = 1", 'batch = 1\nunlabelled = ["spleen"]')
        )
        options = RunOptions(minutes=0.05, **CPU)
        train(recipe, pools(), tmp_path / name, options, clock=Clock())
        export_predictor(tmp_path / name, tmp_path / f"made_{name}")
        said[name] = (tmp_path / f"made_{name}" / "CARD.md").read_text()
    assert "had labels of" not in said["all"]
    assert "have labels of some organs only" not in said["all"]
    assert "No case that it was trained on had labels of spleen." in said["some"]
    assert "have labels of some organs only" in said["some"]


def test_weights_of_another_network_are_refused_to_start_with(make_recipe, recipe, tmp_path):
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.1, **CPU), clock=Clock())
    export_predictor(tmp_path / "run", tmp_path / "made")
    other = make_recipe(("features_per_stage = [4, 8]", "features_per_stage = [4, 6]"))
    options = RunOptions(minutes=0.1, start=tmp_path / "made", **CPU)
    with pytest.raises(PredictorError, match="the network needs"):
        train(other, pools(), tmp_path / "other", options, clock=Clock())


def test_weights_that_are_not_those_of_their_predictor_are_refused_to_start_with(recipe, tmp_path):
    train(recipe, pools(), tmp_path / "run", RunOptions(minutes=0.1, **CPU), clock=Clock())
    export_predictor(tmp_path / "run", tmp_path / "made")
    made = tmp_path / "made" / "model.safetensors"
    stored = load_file(made)
    save_file({name: tensor + 1 for name, tensor in stored.items()}, made)
    options = RunOptions(minutes=0.1, start=tmp_path / "made", **CPU)
    with pytest.raises(WeightsHashError, match=r"model\.safetensors: is not the file"):
        train(recipe, pools(), tmp_path / "other", options, clock=Clock())
    made.unlink()
    with pytest.raises(WeightsMissingError, match="the weights are not there"):
        train(recipe, pools(), tmp_path / "other", options, clock=Clock())


def test_a_network_in_a_file_is_refused_to_start_with(recipe, tmp_path):
    facts = read_toml(ROOT / "weights" / "abdomen_ct" / "predictor.toml", fix="")[1]
    facts = {name: facts[name] for name in ("channels", "labels", "grid")}
    (tmp_path / "net.onnx").write_bytes(b"whatever it holds")
    save_predictor(tmp_path / "made", facts, file=tmp_path / "net.onnx")
    options = RunOptions(minutes=0.1, start=tmp_path / "made", **CPU)
    with pytest.raises(PredictorError, match="is a network in a file"):
        train(recipe, pools(), tmp_path / "other", options, clock=Clock())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"garbage" * 99, "holds what is neither a tensor nor a number|is damaged"),
        (b"", "cannot be read: it is damaged"),
        (b"PK\x03\x04", "cannot be read: it is damaged"),
        ([1, 2], "is not a checkpoint of flarekit train compact: it holds a list"),
        ({"step": 1}, "is not a checkpoint of flarekit train compact: it has no 'network'"),
    ],
)
def test_what_is_no_checkpoint_is_named(recipe, tmp_path, content, words):
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=rf"checkpoint\.pt: ({words})"):
        averaged_network(recipe, path)


class NeverBetter:
    """A validation whose Dice stays where it was."""

    took_s, last_step = 0.0, -1

    def __init__(self):
        self.calls = 0

    def measure(self, _network, _effort, _device, _precision):
        self.calls += 1
        return Measured(step=0, minutes=0.0, scores={"case": {"liver": 0.5}})


@pytest.mark.long
def test_a_training_slows_down_and_ends_early_where_validation_does_not_improve(
    tmp_path, make_recipe
):
    recipe = make_recipe(
        ("batch = 1", 'batch = 1\nvalidation = ["case_c"]\nregime = "attention_unet"'),
        (
            "[provenance]",
            "[training.schedule]\nplateau_patience = 1\nearly_stopping = 2\n\n[provenance]",
        ),
    )
    by = NeverBetter()
    options = RunOptions(minutes=1, **CPU)
    train(recipe, pools(), tmp_path / "run", options, validation=by, clock=Clock())
    rows = rows_of(tmp_path / "run")
    assert by.calls == 4  # the first, two without improvement, and the one at the end
    assert float(rows[-1]["minutes"]) < 0.5
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.5 * float(rows[0]["learning_rate"]))
    train(recipe, pools(), tmp_path / "run", options, validation=by, clock=Clock())
    assert rows_of(tmp_path / "run")[-1]["step"] == rows[-1]["step"]
