"""What the network said is kept for the next call of a case, and never trusted blindly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flarekit.conventions import Case
from flarekit.segmentation.between_calls import BetweenCalls, usable_folder

LABELS = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Clicked(Case):
    clicks: Path | None = None


@pytest.fixture
def case(tmp_path):
    scan = tmp_path / "scan"
    scan.write_bytes(b"voxels")
    (tmp_path / "clicks.json").write_text("[]")
    return Clicked(
        case_id="a", channels=(scan,), mask=Path("a.mha"), clicks=tmp_path / "clicks.json"
    )


def kept(tmp_path, case, **made_by):
    return BetweenCalls.of(tmp_path, case, {"mode": "fast", **made_by})


def test_labels_come_back_whatever_was_clicked_meanwhile(tmp_path, case):
    kept(tmp_path, case).save(LABELS)
    case.clicks.write_text('["more"]')
    np.testing.assert_array_equal(kept(tmp_path, case).load(LABELS.shape), LABELS)


def test_another_scan_or_way_of_running_has_none(tmp_path, case):
    kept(tmp_path, case).save(LABELS)
    assert kept(tmp_path, case, predictor="other").load(LABELS.shape) is None
    case.channels[0].write_bytes(b"other voxels")
    assert kept(tmp_path, case).load(LABELS.shape) is None


def test_clicks_that_the_network_sees_make_another_call(tmp_path, case):
    seen = Clicked(**{**vars(case), "channels": (*case.channels, case.clicks)})
    kept(tmp_path, seen).save(LABELS)
    case.clicks.write_text('["more"]')
    assert kept(tmp_path, seen).load(LABELS.shape) is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_a_damaged_file_is_not_used_and_said(share, tmp_path, case, caplog):
    state = kept(tmp_path, case)
    state.save(LABELS)
    content = state.path.read_bytes()
    state.path.write_bytes(content[: int(share * len(content))])
    assert state.load(LABELS.shape) is None
    assert "the network runs again" in caplog.text


def test_a_file_of_another_kind_is_not_used_and_said(tmp_path, case, caplog):
    state = kept(tmp_path, case)
    with state.path.open("wb") as stream:
        np.save(stream, LABELS)
    assert state.load(LABELS.shape) is None
    assert "the network runs again" in caplog.text


def test_labels_that_somebody_changed_are_not_used(tmp_path, case):
    state = kept(tmp_path, case)
    state.save(LABELS)
    with np.load(state.path) as content:
        arrays = {name: content[name].copy() for name in content.files}
    arrays["labels"][0, 0, 0] ^= 1
    np.savez(state.path, **arrays)
    assert state.load(LABELS.shape) is None
    state.save(LABELS)
    assert state.load((3, 4, 6)) is None


def test_a_folder_that_cannot_be_used_costs_nothing(tmp_path, case, caplog):
    kept(tmp_path / "gone", case).save(LABELS)
    assert "not kept" in caplog.text
    assert usable_folder(str(tmp_path / "gone")) is None
    assert usable_folder("") is None
    assert usable_folder(str(tmp_path)) == tmp_path
