from __future__ import annotations

import numpy as np
import pytest

import flarekit
from flarekit.core.errors import UsageError

RULE = '\n[[rules]]\nname = "clicks"\nlabels = ["organ"]\nvalue = 0.41\n\n[weights]'


@pytest.fixture
def clicked(make_toy):
    """Return a folder of a predictor of CT and PET whose lesions clicks correct."""
    toy = make_toy(channels=2)
    path = toy.folder / "predictor.toml"
    first, second = path.read_text().split('name = "CT"', 1)
    facts = first + 'name = "CT"' + second.replace('name = "CT"', 'name = "PET"', 1)
    path.write_text(facts.replace("\n[weights]", RULE, 1))
    return toy.folder


@pytest.fixture
def petct():
    """Return CT and PET with one hot ball that the network does not see."""
    rng = np.random.default_rng(0)
    ct = rng.integers(-200, 300, (16, 24, 24)).astype(np.int16)
    pet = rng.normal(0.3, 0.05, ct.shape).astype(np.float32)
    pet[4:8, 4:8, 4:8] = 20
    return np.stack([ct, pet])


def opened(folder, petct):
    segmenter = flarekit.load(folder, device="cpu", precision="fp32")
    return segmenter.open(petct, spacing_mm=(2, 2, 2))


def test_clicks_correct_labels_without_the_network(clicked, petct, monkeypatch):
    with opened(clicked, petct) as scan:
        monkeypatch.setattr("flarekit.engine._window.WindowEngine.sweep", None)
        before = scan.result.labels.copy()
        free = np.argwhere(before[4:8, 4:8, 4:8] == 0)
        click = tuple(int(at) + 4 for at in free[0])
        corrected = scan.refine({"tumor": [click]})
        assert corrected.labels[click] == 1
        assert scan.result.labels[click] == 0
        taken = tuple(int(at) for at in np.argwhere(before == 1)[0])
        without = scan.refine({"background": [taken]})
        assert without.labels[taken] == 0
        assert without.volumes_ml["organ"] < scan.result.volumes_ml["organ"]
        np.testing.assert_array_equal(scan.refine({}).labels, before)
        np.testing.assert_array_equal(scan.refine({"tumor": []}).labels, before)


def test_a_click_is_an_index_of_the_labels_in_their_own_order(clicked, petct, tmp_path, write_scan):
    paths = [write_scan(tmp_path / f"{k}.nii.gz", petct[k]) for k in range(2)]
    segmenter = flarekit.load(clicked, device="cpu", precision="fp32")
    with segmenter.open(paths) as scan:
        z, y, x = (int(at) for at in np.argwhere(scan.result.labels.T == 1)[0])
        assert scan.result.labels[x, y, z] == 1
        assert scan.refine({"background": [(x, y, z)]}).labels[x, y, z] == 0


def test_an_open_scan_has_the_probabilities_of_its_labels(clicked, petct):
    segmenter = flarekit.load(clicked, device="cpu", precision="fp32")
    expected = segmenter.segment(petct, spacing_mm=(2, 2, 2), probabilities=True)
    with segmenter.open(petct, spacing_mm=(2, 2, 2)) as scan:
        np.testing.assert_array_equal(scan.result.labels, expected.labels)
        np.testing.assert_allclose(scan.probabilities(), expected.probabilities, atol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        ({"lesion": [(0, 0, 0)]}, "not lesion"),
        ({"tumor": [(0, 0)]}, "are not voxels"),
        ({"tumor": [(0.5, 0, 0)]}, "are not voxels"),
        ({"tumor": [(0, 0, 24)]}, "outside the scan"),
        ({"background": [(-1, 0, 0)]}, "outside the scan"),
    ],
)
def test_clicks_that_are_no_voxels_are_refused(clicked, petct, clicks, words):
    with opened(clicked, petct) as scan, pytest.raises(UsageError, match=words):
        scan.refine(clicks)


def test_a_predictor_without_the_rule_says_so(toy, petct):
    segmenter = flarekit.load(toy.folder, device="cpu", precision="fp32")
    with (
        segmenter.open(petct[0], spacing_mm=(2, 2, 2)) as scan,
        pytest.raises(UsageError, match="toy has no rule that clicks change"),
    ):
        scan.refine({})


def test_a_scan_that_is_closed_says_so_and_its_result_stays(clicked, petct):
    scan = opened(clicked, petct)
    scan.close()
    for ask in (lambda: scan.refine({}), scan.probabilities):
        with pytest.raises(UsageError, match="this scan is closed"):
            ask()
    assert scan.result.labels.shape == (16, 24, 24)
