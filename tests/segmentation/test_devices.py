from __future__ import annotations

import threading

import nibabel
import numpy as np
import pytest

from flarekit.core.errors import DeviceError
from flarekit.engine import EngineFacts
from flarekit.segmentation.devices import devices_of, facts_of_all, side_by_side
from flarekit.segmentation.folder import Options, Report, Silent, run_folder, segment_folder
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source

EXACT = Options(device="cpu", precision="fp32")


@pytest.fixture
def five(tmp_path, write_scan):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate("abcde"):
        voxels = np.random.default_rng(seed).integers(-200, 300, (9, 20, 14))
        write_scan(folder / f"{name}_0000.nii.gz", voxels)
    return folder


@pytest.mark.parametrize(
    ("request_", "names"),
    [("cuda:0,cuda:1", ["cuda:0", "cuda:1"]), ("auto", ["auto"]), ("cpu, cuda", ["cpu", "cuda"])],
)
def test_devices_are_separated_by_commas(request_, names):
    assert devices_of(request_) == names


@pytest.mark.parametrize("request_", ["", "cuda:0,", "cuda:0,cuda:0", "auto,cpu"])
def test_devices_that_are_named_twice_or_not_at_all_are_refused(request_):
    with pytest.raises(DeviceError, match="no devices"):
        devices_of(request_)


class Numbers(Silent):
    def __init__(self):
        self.began, self.ended = {}, []

    def start_case(self, case_id, index, total):
        self.began[case_id] = (index, total, threading.current_thread().name)

    def end_case(self, record):
        self.ended.append(record.case_id)


def segmenter_of(toy):
    return Segmenter(Source.of_folder(toy), EXACT)


@pytest.mark.parametrize(
    "devices", [2, *(pytest.param(count, marks=pytest.mark.long) for count in (3, 7))]
)
def test_several_devices_share_the_cases_and_leave_the_masks_of_one(toy, five, tmp_path, devices):
    segment_folder(toy, five, tmp_path / "one", EXACT)
    progress = Numbers()
    first, *others = [segmenter_of(toy) for _ in range(devices)]
    report = Report(tmp_path / "report", pictures=False)
    record = run_folder(first, five, tmp_path / "some", EXACT, progress, report, others=others)
    assert [case.case_id for case in record.cases] == list("abcde")
    assert not record.failed
    assert record.device.split(",") == ["cpu"] * min(devices, 5)
    assert sorted(index for index, _, _ in progress.began.values()) == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in progress.began.values()} == {5}
    assert len({thread for _, _, thread in progress.began.values()}) == min(devices, 5)
    assert sorted(progress.ended) == list("abcde")
    assert len((tmp_path / "report" / "ledger.jsonl").read_text().splitlines()) == 5
    for name in "abcde":
        one, some = (
            np.asarray(nibabel.load(tmp_path / folder / f"{name}.nii.gz").dataobj)
            for folder in ("one", "some")
        )
        np.testing.assert_array_equal(one, some)


def test_a_case_that_fails_on_one_device_takes_no_other_along(toy, five, tmp_path):
    (five / "b_0000.nii.gz").write_bytes(b"")
    record = run_folder(
        segmenter_of(toy), five, tmp_path / "out", EXACT, others=[segmenter_of(toy)]
    )
    assert [case.case_id for case in record.failed] == ["b"]
    assert len(record.cases) == 5


def test_stopping_at_an_error_stops_every_device(toy, five, tmp_path):
    (five / "a_0000.nii.gz").write_bytes(b"")
    options = Options(device="cpu", precision="fp32", on_error="stop")
    record = run_folder(
        segmenter_of(toy), five, tmp_path / "out", options, others=[segmenter_of(toy)]
    )
    assert "a" in [case.case_id for case in record.failed]
    assert {*(case.case_id for case in record.cases), *record.not_run} == set("abcde")


def test_a_device_that_is_not_there_ends_the_run(toy, five, tmp_path):
    with pytest.raises(DeviceError, match="cuda:99"):
        segment_folder(toy, five, tmp_path / "out", Options(device="cpu,cuda:99"))


def test_what_raises_on_one_device_tells_the_others_to_stop():
    told = threading.Event()

    def fails():
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        side_by_side([fails, lambda: told.wait(60)], told.set)
    assert told.is_set()


def test_facts_of_several_devices_name_each_thing_once():
    facts = [
        EngineFacts(engine="torch", device=f"cuda:{n}", device_name="a card", precision="fp16")
        for n in range(2)
    ]
    both = facts_of_all(facts)
    assert (both.device, both.device_name, both.scan) == ("cuda:0,cuda:1", "a card", None)
