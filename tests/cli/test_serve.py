from __future__ import annotations

import shutil
import socket

import pytest

from tests.command import run

pytest.importorskip("fastapi", reason="the extra serve is not installed")


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "lets other machines in, and no token is set"),
        (["--token-file", "missing"], 3, "missing: cannot be read"),
        (["-p", "abdomen"], 2, "no predictor 'abdomen'"),
        (["--queue", "0"], 2, "--queue"),
        (["--device", "cuda:99"], 5, "'cuda:99' is not available"),
        (["--device", "cpu,abacus"], 5, "no device 'abacus'"),
        (["--device", "cpu", "--precision", "fp16"], 5, "fp16 is not available"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_listens(arguments, code, said, tmp_path):
    ended = run("serve", *arguments, "--port", "0", "--data", tmp_path / "data")
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr


def test_a_predictor_without_whole_weights_is_not_served(toy, located_toy, tmp_path):
    command = ["serve", "-p", toy.folder, "--port", "0", "--data", tmp_path / "data"]
    for weights in (located_toy.locator.weights, toy.weights):
        weights.write_bytes(b"torn")
        damaged = run(*command)
        weights.unlink()
        missing = run(*command)
        for ended in (damaged, missing):
            assert ended.returncode == 4
            assert str(weights) in ended.stderr


def test_a_damaged_predictor_is_left_out_of_those_at_hand_and_named(toy, tmp_path, monkeypatch):
    toy.weights.write_bytes(b"torn")
    monkeypatch.setattr("flarekit.segmentation.predictors.predictors", lambda: (toy,))
    ended = run("serve", "--port", "0", "--data", tmp_path / "data")
    assert ended.returncode == 2
    assert "toy is not offered" in ended.stderr
    assert "no predictor is at hand" in ended.stderr


def test_one_name_is_not_given_to_two_predictors(toy, tmp_path):
    other = shutil.copytree(toy.folder, tmp_path / "other")
    ended = run("serve", "-p", toy.folder, "-p", other, "--data", tmp_path / "data")
    assert ended.returncode == 2
    assert "are both named toy" in ended.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", "--port", port, "-p", "abdomen_ct", "--data", tmp_path / "data")
    assert ended.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on" in ended.stderr


def test_two_services_do_not_share_a_folder(tmp_path):
    from flarekit.service.service import Service
    from flarekit.service.settings import Settings

    first = Service(Settings(data=tmp_path / "data"))
    ended = run("serve", "--port", "0", "-p", "abdomen_ct", "--data", tmp_path / "data")
    first.stop()
    assert ended.returncode == 2
    assert "another service uses this folder" in ended.stderr
