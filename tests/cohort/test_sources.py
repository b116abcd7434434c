from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.cohort.sources import Folder, Rows, source_of
from flarekit.core.errors import InputError, UsageError
from flarekit.segmentation.fingerprint import input_sha256
from tests.command import run
from tests.conventions.dicom.dicom_files import ct_voxels, write_series

pytest.importorskip("fsspec", reason="the extra `cluster` is not installed")


@pytest.fixture
def scans(tmp_path, write_scan):
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    write_scan(folder / "a_0000.nii.gz")
    write_scan(folder / "deep" / "b_0000.nii.gz")
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(folder / "c.mha")
    )
    return folder


def opened(place, spec):
    source = source_of(str(place), spec, None)
    with source.open(spec) as found:
        return source, found.convention, {case.case_id: case for case in found.cases}


def write_list(path, text):
    path.write_text(text)
    return path


def test_a_folder_is_that_of_a_convention(toy, scans):
    source = source_of(str(scans), toy.spec, None)
    assert source == Folder(path=scans, convention=None)


def test_what_workers_are_told_does_not_depend_on_where_they_run(toy, scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_of(scans.name, toy.spec, None) == Folder(path=scans, convention=None)


@pytest.mark.parametrize("written", ["a.nii.gz", "statistics.csv", "q/a.npz"])
@pytest.mark.parametrize("spelled", ["", "file://", "local://"])
def test_no_file_that_a_list_names_is_replaced(toy, tmp_path, write_scan, written, spelled):
    out, report = tmp_path / "out", tmp_path / "report"
    scan = {"a.nii.gz": out, "q/a.npz": tmp_path, "statistics.csv": report}[written] / written
    scan.parent.mkdir()
    write_scan(tmp_path / "scan.nii.gz").rename(scan)
    before = scan.read_bytes()
    place = write_list(tmp_path / "list.csv", f"case,scan\na,{spelled}{scan}\n")
    command = ["cohort", "run", "-i", place, "-o", out, "-p", toy.folder, "--device", "cpu"]
    command += ["--report", report, "--probabilities", tmp_path / "q", "--no-pictures"]
    ended = run(*command)
    assert ended.returncode == 2
    assert f"{scan}: is an input and would be replaced" in ended.stderr
    assert scan.read_bytes() == before


def test_what_is_written_besides_masks_is_written_for_dicom_alone(toy, scans, tmp_path):
    write_series(tmp_path / "dicom" / "s", ct_voxels())
    source = source_of(str(tmp_path / "dicom"), toy.spec, "dicom", ("rtstruct",))
    with source.open(toy.spec) as found:
        outputs = conventions.outputs_of(found.convention, found.cases)
    assert any("rtstruct" in path.name for path in outputs)
    with (
        pytest.raises(UsageError, match="rtstruct is written for DICOM series"),
        source_of(str(scans), toy.spec, None, ("rtstruct",)).open(toy.spec),
    ):
        pass
    with pytest.raises(UsageError, match="rtstruct is written for DICOM series"):
        source_of("list.csv", toy.spec, None, ("rtstruct",))


@pytest.mark.parametrize("column", ["scan", "CT", "ct"])
def test_a_csv_names_cases_and_files_relative_to_itself(toy, scans, tmp_path, column):
    lines = f"case,{column},age\na,scans/a_0000.nii.gz,44\nb,{scans}/deep/b_0000.nii.gz,61\n"
    source, convention, cases = opened(write_list(tmp_path / "list.csv", lines), toy.spec)
    assert isinstance(source, Rows)
    assert list(cases) == ["a", "b"]
    (volume,) = convention.read_case(cases["a"])
    assert volume.voxels_ZYX.shape == (9, 20, 14)
    mask = convention.write_mask(
        cases["a"], np.ones((9, 20, 14), np.uint8), volume.geometry, tmp_path
    )
    assert mask == tmp_path / "a.nii.gz"
    assert nibabel.load(mask).shape == (14, 20, 9)


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(
    "text",
    [
        "\ufeffcase;scan\r\na;scans/a_0000.nii.gz\r\n",
        "Case\tScan \n a \t scans/a_0000.nii.gz \n",
        'CASE, "CT" \na, "scans/a_0000.nii.gz"\n',
    ],
)
def test_a_csv_is_read_as_spreadsheets_write_it(toy, tmp_path, text):
    _, convention, cases = opened(write_list(tmp_path / "list.csv", text), toy.spec)
    (volume,) = convention.read_case(cases["a"])
    assert volume.voxels_ZYX.shape == (9, 20, 14)


@pytest.mark.usefixtures("scans")
def test_json_lines_name_the_channels_of_each_case(make_toy, tmp_path):
    toy = make_toy(channels=2)
    files = ["scans/a_0000.nii.gz", "scans/deep/b_0000.nii.gz"]
    line = json.dumps({"case": "x", "channels": files})
    _, convention, cases = opened(write_list(tmp_path / "l.jsonl", line + "\n\n"), toy.spec)
    assert len(convention.read_case(cases["x"])) == 2


@pytest.mark.usefixtures("scans")
def test_an_mha_has_a_mask_of_its_kind(toy, tmp_path):
    listed = write_list(tmp_path / "l.csv", "case,scan\nc,scans/c.mha\n")
    _, convention, cases = opened(listed, toy.spec)
    (volume,) = convention.read_case(cases["c"])
    label_map = np.ones((4, 5, 6), np.uint8)
    mask = convention.write_mask(cases["c"], label_map, volume.geometry, tmp_path)
    assert SimpleITK.ReadImage(str(mask)).GetSize() == (6, 5, 4)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_what_a_failed_case_leaves_has_the_shape_of_its_scan(toy, tmp_path, ending):
    image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    SimpleITK.WriteImage(image, str(tmp_path / f"c{ending}"))
    listed = write_list(tmp_path / "l.csv", f"case,scan\nc,c{ending}\n")
    _, convention, cases = opened(listed, toy.spec)
    (tmp_path / "out").mkdir()
    mask = convention.write_empty_mask(cases["c"], tmp_path / "out")
    assert SimpleITK.ReadImage(str(mask)).GetSize() == (6, 5, 4)


@pytest.mark.usefixtures("scans")
def test_names_of_cases_are_safe_as_those_of_files(toy, tmp_path):
    listed = write_list(tmp_path / "l.csv", "case,scan\n../../evil,scans/a_0000.nii.gz\n")
    _, _, cases = opened(listed, toy.spec)
    (case,) = cases.values()
    assert case.mask.name == str(case.mask)
    assert ".." not in case.case_id.split("/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,scan\n", "lists no cases"),
        ("scan\nx.nii.gz\n", "line 2: names no case"),
        ("case,scan\na,\n", "line 2: case 'a' lacks files"),
        ("case,scan\na,x\0.nii.gz\n", "line 2"),
        ("case,picture\na,x.nii.gz\n", "fill in `scan`"),
        ("case,scan\na,x.nii.gz\na,y.nii.gz\n", "is in line 2 as well"),
    ],
)
def test_what_is_wrong_with_a_list_is_named_by_line(toy, tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        opened(write_list(tmp_path / "l.csv", text), toy.spec)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"case": 3, "scan": "x.nii"}'])
def test_what_is_wrong_with_json_lines_is_named_by_line(toy, tmp_path, text):
    with pytest.raises(InputError, match="line 1"):
        opened(write_list(tmp_path / "l.jsonl", text), toy.spec)


def test_a_list_with_other_channels_than_the_predictor_s_is_refused(toy, tmp_path):
    line = json.dumps({"case": "x", "channels": ["a.nii", "b.nii"]})
    with pytest.raises(InputError, match="has 2 channels, and toy takes 1"):
        opened(write_list(tmp_path / "l.jsonl", line), toy.spec)


def test_a_missing_or_damaged_listed_scan_is_named_by_its_place(toy, scans, tmp_path):
    (scans / "a_0000.nii.gz").write_bytes(b"torn")
    lines = "case,scan\na,scans/a_0000.nii.gz\nb,scans/none.nii.gz\nc,scans/notes.txt\n"
    _, convention, cases = opened(write_list(tmp_path / "l.csv", lines), toy.spec)
    for case in cases.values():
        with pytest.raises(InputError, match=Path(case.places[0]).name):
            convention.read_case(case)
        assert convention.write_empty_mask(case, tmp_path).is_file()


def test_a_convention_of_a_list_is_refused(toy, tmp_path):
    with pytest.raises(UsageError, match="--convention"):
        source_of(str(tmp_path / "l.csv"), toy.spec, "flare")


def test_a_uri_is_listed_and_scans_come_when_they_are_read(toy, scans, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, convention, cases = opened(f"file://{scans}", toy.spec)
    assert sorted(cases) == ["a", next(name for name in cases if name.startswith("deep_b"))]
    (volume,) = convention.read_case(cases["a"])
    assert volume.voxels_ZYX.shape == (9, 20, 14)
    assert not list(tmp_path.glob("flarekit-*/scan.nii.gz"))


def test_a_uri_whose_files_changed_is_another_input(toy, scans, write_scan):
    def identities():
        cases = opened(f"file://{scans}", toy.spec)[2]
        return {name: input_sha256(case) for name, case in cases.items()}

    before = identities()
    write_scan(scans / "a_0000.nii.gz", np.zeros((3, 4, 5)))
    after = identities()
    assert {name for name in after if after[name] != before[name]} == {"a"}


def test_a_uri_without_scans_or_of_no_known_kind_is_refused(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        source_of(f"file://{tmp_path}/empty", toy.spec, None)
    with pytest.raises(UsageError, match="cannot be opened"):
        source_of("gopher://host/scans", toy.spec, None)


@pytest.fixture
def server(scans):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=scans)) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_list_may_name_scans_on_a_server(toy, server, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec opens http with aiohttp, which is not installed")
    lines = f"case,scan\na,{server}/a_0000.nii.gz\n"
    _, convention, cases = opened(write_list(tmp_path / "l.csv", lines), toy.spec)
    (volume,) = convention.read_case(cases["a"])
    assert volume.voxels_ZYX.shape == (9, 20, 14)


@pytest.fixture
def s3(scans, monkeypatch):
    """Run a server that speaks S3's protocol, with the scans in a bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: S3 was not tested")
    pytest.importorskip("flask", reason="moto[server] is not installed: S3 was not tested")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: S3 was not tested")
    import fsspec

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("hospital")
    for path in scans.glob("*_0000.nii.gz"):
        store.put_file(str(path), f"hospital/scans/{path.name}")
    yield store
    server.stop()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_scans_in_an_s3_bucket_are_listed_read_and_told_apart(toy, s3, write_scan, tmp_path):
    _, convention, cases = opened("s3://hospital/scans", toy.spec)
    assert list(cases) == ["a"]
    (volume,) = convention.read_case(cases["a"])
    assert volume.voxels_ZYX.shape == (9, 20, 14)
    before = input_sha256(cases["a"])
    changed = write_scan(tmp_path / "other.nii.gz", np.zeros((4, 5, 6)))
    s3.put_file(str(changed), "hospital/scans/a_0000.nii.gz")
    s3.invalidate_cache()
    import fsspec

    fsspec.filesystem("s3").invalidate_cache()
    assert input_sha256(opened("s3://hospital/scans", toy.spec)[2]["a"]) != before
    with pytest.raises(InputError, match=r"s3://hospital/none"):
        source_of("s3://hospital/none", toy.spec, None)
