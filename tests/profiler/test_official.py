"""`recorded/` holds cases in FLARE's form and the CSV that its load_json.py made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.errors import InputError
from flarekit.core.readings import Unsupported
from flarekit.profiler.load_report import load_report
from flarekit.profiler.official import (
    OfficialRecord,
    figures_of,
    read_record,
    record_of,
    write_csv,
)
from flarekit.profiler.readings import Sample

RECORDED = Path(__file__).parent / "recorded"


def test_a_json_recorded_elsewhere_gives_the_same_csv_byte_by_byte(tmp_path):
    records = {path.name[:-5]: read_record(path) for path in RECORDED.glob("*.json")}
    assert len(records) == 4
    write_csv(records, tmp_path / "team_Efficiency.csv")
    ours = (tmp_path / "team_Efficiency.csv").read_bytes()
    assert ours == (RECORDED / "team_Efficiency.csv").read_bytes()


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_a_json_is_written_as_flare_writes_it(path):
    assert read_record(path).content() == path.read_bytes()


def test_a_folder_of_recorded_files_is_a_report_and_stays_one_for_flare(tmp_path):
    root = tmp_path / "team"
    shutil.copytree(RECORDED, root)
    (root / "team_Efficiency.csv").unlink()
    before = sorted(root.glob("*.json"))
    for _ in range(2):  # the second time its own files are there too
        report, folder = load_report(root)
        folder.write(report)
    expected = (RECORDED / "team_Efficiency.csv").read_bytes()
    assert (root / "team_Efficiency.csv").read_bytes() == expected
    assert sorted(root.glob("*.json")) == before
    assert [case.case_id for case in report.cases][:2] == ["FLARETs_0001", "FLARETs_0002"]
    assert "0.1 s apart" in report.notes[0]


@pytest.mark.slow
def test_the_command_draws_such_a_folder(tmp_path, flarekit):
    root = tmp_path / "team"
    shutil.copytree(RECORDED, root)
    result = flarekit("report", root)
    assert result.returncode == 0, result.stderr
    assert "FLARETs_0001_0000" in (root / "efficiency.html").read_text()
    assert len(list((root / "curves").glob("*.png"))) == 4


def test_without_a_gpu_the_cells_say_so_and_are_not_zero(tmp_path):
    record = OfficialRecord(gpu_memory=[], cpu_list=[[1, 2, 90.0]], ram_list=[100], time=1.5)
    write_csv({"a_0000": record}, tmp_path / "t.csv")
    row = (tmp_path / "t.csv").read_text().splitlines()[1]
    assert row == "a_0000.nii.gz,1.5,not supported,not supported,10.0,1.0,100,10.0"
    assert isinstance(figures_of(record).max_gpu_mib, Unsupported)


def test_a_gpu_that_is_lost_ends_its_list():
    gone = Unsupported(not_supported="GPU is lost")
    samples = [
        Sample(t_s=0.1 * index, readings={"gpu_used_mib": value, "host_ram_mib": 1.0})
        for index, value in enumerate([5.0, 6.0, gone, gone])
    ]
    record = record_of(samples, 0.4)
    assert list(record.gpu_memory) == [5.0, 6.0]
    assert len(record.ram_list) == 4


@pytest.mark.parametrize(
    "content", ["", "[]", '{"gpu_memory": [1]}', '{"gpu_memory":[],"cpu_list":[[1]],"RAM_list":[]}']
)
def test_what_is_not_flares_json_is_named(tmp_path, content):
    path = tmp_path / "a_0000.json"
    path.write_text(content)
    with pytest.raises(InputError, match="a_0000.json: not FLARE's JSON"):
        read_record(path)


_numbers = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6))


@pytest.mark.long
@settings(deadline=None)  # files are written; how fast is the machine's affair
@given(
    gpu=st.lists(_numbers),
    cpu=st.lists(st.tuples(_numbers, _numbers, _numbers)),
    ram=st.lists(_numbers),
    time=st.none() | _numbers,
)
def test_what_is_written_is_read_back(tmp_path_factory, gpu, cpu, ram, time):
    record = OfficialRecord(gpu_memory=gpu, cpu_list=cpu, ram_list=ram, time=time)
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_bytes(record.content())
    assert read_record(path) == record
    assert json.loads(record.content())["gpu_memory"] == gpu
