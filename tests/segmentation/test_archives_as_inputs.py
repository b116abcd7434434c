"""Archives as inputs: they are called by their own names, and what keeps them out is told."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from flarekit.conventions.dicom.series import find_series
from flarekit.core.archives import Unpacked
from flarekit.core.errors import InputError, OutputError, UnreadableVolumeError
from flarekit.core.files import printable
from flarekit.core.unpacked_names import by_archive, place_of
from flarekit.segmentation.folder import Options, Report, segment_folder
from tests.conventions.dicom.dicom_files import ct_voxels, write_series

OPTIONS = Options(device="cpu", precision="fp32")
NO_SPACE = "cannot be unpacked into a temporary folder in .*: No space left on device"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a folder with a zip of a series, where temporary files lie beside it."""
    (tmp_path / "some where").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "some where"))
    write_series(tmp_path / "dicom" / "ct", ct_voxels())
    (tmp_path / "zips").mkdir()
    shutil.make_archive(tmp_path / "zips" / "study", "zip", tmp_path / "dicom")
    return tmp_path / "zips"


@pytest.fixture
def full(monkeypatch):
    """Let the disk be full wherever an archive is unpacked."""

    def refuse(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("flarekit.core.archives._Unpacking.run", refuse)


@pytest.mark.parametrize("convention", [None, "dicom"])
@pytest.mark.usefixtures("full")
def test_a_zip_of_dicom_that_does_not_fit_the_temporary_folder_is_told_so(
    toy, study, tmp_path, convention
):
    options = Options(device="cpu", precision="fp32", convention=convention)
    with pytest.raises(InputError) as caught:
        segment_folder(toy, study, tmp_path / "out", options)
    told = str(caught.value)
    assert f"{study / 'study.zip'}: cannot be unpacked into a temporary folder" in told
    assert "No space left on device" in told
    assert "set TMPDIR" in told
    assert "there are archives" not in told


@pytest.mark.usefixtures("full")
def test_an_archive_that_is_named_itself_says_that_its_space_is_missing(toy, study, tmp_path):
    with pytest.raises(OutputError, match=NO_SPACE):
        segment_folder(toy, study / "study.zip", tmp_path / "out", OPTIONS)


def test_a_temporary_folder_that_is_not_there_is_told_and_not_a_traceback(
    toy, study, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="temporary folder in .*absent: No such file"):
        segment_folder(toy, study / "study.zip", tmp_path / "out", OPTIONS)


@pytest.mark.long
def test_an_archive_that_fits_is_segmented_where_another_does_not(
    toy, study, tmp_path, monkeypatch
):
    shutil.copy(study / "study.zip", study / "other.zip")
    kept = Unpacked.add

    def add(self: Unpacked, path: Path) -> Path:
        if path.name == "other.zip":
            raise OutputError(f"{path}: No space left on device", fix="set TMPDIR")
        return kept(self, path)

    monkeypatch.setattr(Unpacked, "add", add)
    record = segment_folder(toy, study, tmp_path / "out", OPTIONS)
    assert len(record.cases) == 1
    assert "other.zip: No space left" in record.left_out[0]


@pytest.mark.long
def test_messages_and_the_record_call_files_of_an_archive_by_the_archive(
    toy, study, tmp_path, caplog
):
    (tmp_path / "dicom" / "bad.dcm").write_bytes(b"not DICOM")
    shutil.make_archive(study / "study", "zip", tmp_path / "dicom")
    caplog.set_level(logging.INFO)
    report = Report(tmp_path / "report")
    archive = study / "study.zip"
    segment_folder(toy, archive, tmp_path / "out", OPTIONS, report=report)
    said = printable(caplog.text)
    assert f"{archive}: not laid out as flare" in said.replace("/ct", "")
    assert f"{archive}/bad.dcm: is not a DICOM file" in said
    assert "flarekit-unpacked" not in said
    written = [path.read_text() for path in (tmp_path / "report").glob("*.json*")]
    assert any(f"{archive}/bad.dcm" in text for text in written)
    assert not any("flarekit-unpacked" in text for text in written)
    assert json.loads((tmp_path / "report" / "run.json").read_text())["left_out"]


@pytest.mark.parametrize("named", ["study.zip", "zips/study.zip", "/data/zips/study.zip"])
def test_a_path_of_an_unpacked_file_becomes_the_archive_s_as_it_was_named(named):
    root = Path(tempfile.gettempdir(), "flarekit-unpacked-ab_12x9z")
    place = place_of(Path(named), root, 3)
    assert place.is_relative_to(root)
    assert by_archive(f"{place}/ct/IM1: is cut off") == f"{named}/ct/IM1: is cut off"
    error = UnreadableVolumeError(place / "IM1", "is cut off", fix="export it again")
    assert str(error) == f"{named}/IM1: is cut off (export it again)"


def test_an_archive_above_the_working_folder_is_unpacked_below_the_temporary_one(tmp_path):
    root = tmp_path / "flarekit-unpacked-ab_12x9z"
    place = place_of(Path("..", "study.zip"), root, 1)
    assert ".." not in place.parts
    assert by_archive(str(place)) == str(Path.cwd().parent / "study.zip")


def test_series_of_an_archive_are_found_below_its_own_name(study):
    with Unpacked() as unpacked:
        (series,) = find_series([study], unpacked).series
        assert series.folder.is_dir()
        assert by_archive(str(series.folder)) == str(study / "study.zip" / "ct")
    assert not any(Path(tempfile.gettempdir()).iterdir())
