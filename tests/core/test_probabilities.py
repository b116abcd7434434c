from __future__ import annotations

import numpy as np
import pytest

from flarekit.core.errors import InputError, OutputError
from flarekit.core.names import UnsafePathError
from flarekit.core.probabilities import probabilities_path, read_probabilities, write_probabilities

SHAPE = (3, 4, 5)


def some(classes=2):
    p = np.random.default_rng(0).random((classes, *SHAPE)).astype(np.float32)
    return p / p.sum(axis=0)


def test_what_is_written_is_what_is_read(tmp_path):
    path = probabilities_path(tmp_path / "folder", "case a")
    write_probabilities(path, some(), [0, 7])
    probabilities, values = read_probabilities(path, SHAPE)
    np.testing.assert_array_equal(probabilities, some().astype(np.float16))
    assert values.tolist() == [0, 7]
    assert [each.name for each in path.parent.iterdir()] == ["case a.npz"]


def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path):
    with pytest.raises(UnsafePathError):
        probabilities_path(tmp_path, "../case")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _path: None, "holds no probabilities"),
        (lambda path: path.write_bytes(b"no archive"), "holds no probabilities"),
        (lambda path: np.savez(path, other=np.zeros(3)), "holds no probabilities"),
        (lambda path: np.savez(path, probabilities=np.array([{}]), values=[0]), "holds no prob"),
        (lambda path: write_probabilities(path, some(3), [0, 1]), "for 2 classes"),
        (lambda path: write_probabilities(path, some()[:, :2], [0, 1]), "the mask has"),
        (lambda path: write_probabilities(path, some() * 3, [0, 1]), "are not probabilities"),
        (lambda path: write_probabilities(path, some() * np.nan, [0, 1]), "are not probabilities"),
    ],
)
def test_what_holds_no_probabilities_of_the_case_is_named(write, message, tmp_path):
    path = tmp_path / "case.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        read_probabilities(path, SHAPE)
    assert str(path) in caught.value.message


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_probabilities(tmp_path / "file" / "case.npz", some(), [0, 1])
