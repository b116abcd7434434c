"""What a folder of DICOM files holds is not what one header says of it."""

from __future__ import annotations

import functools
import io
import logging
import random
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import generate_uid

from flarekit import conventions
from flarekit.conventions import left_out_of
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.archives import Unpacked
from flarekit.core.errors import InputError
from tests.conventions.dicom.dicom_files import (
    ct_voxels,
    pet_elements,
    put_raw,
    slice_of,
    write_series,
)


def find(folder, channels=1, settings=None):
    return conventions.get("dicom", settings, labels={"liver": 1}).find_cases(folder, channels)


def voxels_of(case):
    (volume,) = conventions.get("dicom").read_case(case)
    return volume.voxels_ZYX


def write(folder, slices):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(slices):
        image.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)


def stack(count=6, uid=None, gap=4.0, **elements):
    """Return slices of one series, in order."""
    uid = uid or generate_uid()
    voxels = ct_voxels(count)
    return [slice_of(voxels[k], (0, 0, gap * k), uid, k + 1, **elements) for k in range(count)]


@functools.cache
def stored_stack(count):
    """Return the files of one series and its identifiers: the series', then those of the slices."""
    slices = stack(count)
    files = [io.BytesIO() for _ in slices]
    for image, file in zip(slices, files, strict=True):
        image.save_as(file, enforce_file_format=True)
    uids = [slices[0].SeriesInstanceUID, *(image.SOPInstanceUID for image in slices)]
    return [file.getvalue() for file in files], [uid.encode() for uid in uids]


def write_stack(folder, count=6):
    """Write what `stack` makes, the same files but for their identifiers."""
    folder.mkdir(parents=True, exist_ok=True)
    files, uids = stored_stack(count)
    new = [uid[:-12] + b"%012d" % random.randrange(10**12) for uid in uids]
    for number, content in enumerate(files):
        series, instance = (uids[0], new[0]), (uids[1 + number], new[1 + number])
        content = content.replace(*series).replace(*instance)
        (folder / f"IM{number:04d}.dcm").write_bytes(content)


def edited(**changes):
    def edit(image):
        for keyword, value in changes.items():
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)

    return edit


def test_directions_that_differ_by_rounding_are_one_volume(tmp_path):
    slices = stack(8)
    for k, image in enumerate(slices):
        image.ImageOrientationPatient = [1, 0.00049 if k % 2 else 0.00051, 0, -0.0005, 1, 0]
    write(tmp_path, slices)
    (case,) = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(case), ct_voxels(8))


def test_every_direction_of_a_series_is_a_case_with_its_own_name(tmp_path):
    uid = generate_uid()
    axial, coronal = stack(6, uid), stack(5, uid)
    for k, image in enumerate(coronal):
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        image.ImagePositionPatient = [0, 4 * k, 0]
    write(tmp_path, axial + coronal)
    cases = find(tmp_path)
    assert [case.case_id for case in cases] == [f"{uid}-1", f"{uid}-2"]
    assert len({case.mask for case in cases}) == 2
    assert [voxels_of(case).shape[0] for case in cases] == [6, 5]
    assert left_out_of(cases) == ()
    (volume,) = conventions.get("dicom").read_case(cases[1])
    parted = "is one of 2 volumes in a series, of 11 images: slices IM0006.dcm to IM0010.dcm (5)"
    assert parted in volume.warnings


def test_every_size_of_a_series_is_a_case_with_its_own_name(tmp_path):
    uid = generate_uid()
    small = [slice_of(np.zeros((4, 5)), (0, 0, 4 * k), uid, k) for k in range(3)]
    write(tmp_path, stack(6, uid) + small)
    assert [voxels_of(case).shape for case in find(tmp_path)] == [(6, 8, 10), (3, 4, 5)]


@pytest.mark.parametrize(
    "element",
    ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "ImageType", "TriggerTime"],
)
def test_phases_of_a_series_are_cases_where_an_element_tells_them_apart(tmp_path, element):
    uid = generate_uid()
    values = (["ORIGINAL", "PRIMARY", "A"], ["DERIVED", "PRIMARY", "A"])
    values = values if element == "ImageType" else (1, 2)
    phases = [stack(4, uid, **{element: value}) for value in values]
    for image in phases[1]:
        image.PixelData = np.full((8, 10), 7, np.int16).tobytes()
    write(tmp_path, phases[0] + phases[1])
    cases = find(tmp_path)
    assert [case.case_id for case in cases] == [f"{uid}-1", f"{uid}-2"]
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels(4))
    assert (voxels_of(cases[1]) == 7).all()


def test_two_series_of_one_identifier_in_two_studies_have_two_names(tmp_path):
    uid = generate_uid()
    write(tmp_path / "a", stack(4, uid))
    write(tmp_path / "b", stack(3, uid, StudyInstanceUID="1.2.3"))
    cases = find(tmp_path)
    assert sorted(voxels_of(case).shape[0] for case in cases) == [3, 4]
    assert len({case.mask for case in cases}) == 2


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k, i: setattr(i, "PixelSpacing", [0.75, 1.25]) if k > 3 else None, "PixelSpacing"),
        (lambda k, i: setattr(i, "PixelSpacing", [1.5, 2.6]) if k == 5 else None, "PixelSpacing"),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [30 * (k > 4), 0, 4 * k]),
            "jumps sideways by 30 mm at IM0005",
        ),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [0, 9 * (k == 4), 4 * k]),
            "jumps sideways",
        ),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [0.2 * k * k, 0, 4 * k]),
            "jumps sideways",
        ),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [0, 0, 4 * k + 3 * (k > 4)]),
            "lacks slices",
        ),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [0, 0, 0 * k]),
            "several slices at one pos",
        ),
        (
            lambda k, i: setattr(i, "ImagePositionPatient", [4 * k, 0, 0]),
            "several slices at one pos",
        ),
    ],
)
def test_geometry_that_changes_within_a_volume_is_refused(tmp_path, change, words):
    slices = stack(10)
    for k, image in enumerate(slices):
        change(k, image)
    write(tmp_path / "bad", slices)
    with pytest.raises(InputError, match=words):
        find(tmp_path)
    write_stack(tmp_path / "good", 5)
    cases = find(tmp_path)
    assert [case.channels[0].name for case in cases] == ["good"]
    (fault,) = left_out_of(cases)
    assert "bad: series" in fault
    assert "10 files" in fault


@pytest.mark.long
def test_a_distance_that_changes_by_little_but_for_long_is_refused(tmp_path):
    slices = stack(40)
    for k, image in enumerate(slices):
        image.ImagePositionPatient = [0, 0, 4 * k + 0.35 * max(0, k - 20)]
    write(tmp_path, slices)
    with pytest.raises(InputError, match="changes the distance between its slices, from 4 to 4.35"):
        find(tmp_path)


def test_a_tilted_gantry_is_no_jump(tmp_path):
    slices = stack(8)
    for k, image in enumerate(slices):
        image.ImagePositionPatient = [0, 1.1 * k, 4 * k]
    write(tmp_path, slices)
    (case,) = find(tmp_path)
    (volume,) = conventions.get("dicom").read_case(case)
    np.testing.assert_allclose(volume.geometry.affine[:3, 2], [0, -1.1, 4], atol=1e-6)


@pytest.mark.quick(10)
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited(SeriesInstanceUID=None), "SeriesInstanceUID is missing"),
        (edited(SeriesInstanceUID=""), "SeriesInstanceUID is missing"),
        (edited(StudyInstanceUID=None), "another version of .*StudyInstanceUID is missing"),
        (edited(ImagePositionPatient=None), r"ImagePositionPatient \(0020,0032\) is missing"),
        (edited(ImagePositionPatient=""), "ImagePositionPatient .* is empty"),
        (edited(ImagePositionPatient=[1, 2]), "ImagePositionPatient .* has 2 values, not 3"),
        (edited(ImagePositionPatient=[1, 2, 3, 4]), "has 4 values, not 3"),
        (edited(ImageOrientationPatient=None), "ImageOrientationPatient .* is missing"),
        (edited(ImageOrientationPatient=[1, 0, 0, 0, 1]), "has 5 values, not 6"),
        (edited(ImageOrientationPatient=[0] * 6), "not a pair of unit vectors"),
        (edited(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not a pair of unit vectors"),
        (edited(PixelSpacing=None), "PixelSpacing .* is missing"),
        (edited(PixelSpacing=[0, 1]), "PixelSpacing is 0 and 1 mm"),
        (edited(PixelSpacing=[1, -1]), "PixelSpacing is 1 and -1 mm"),
        (edited(PixelSpacing=1), "PixelSpacing .* has 1 values, not 2"),
        (edited(Rows=None), "Rows .* is missing"),
        (edited(Rows=0), "Rows and Columns are 0 and 10"),
        (edited(Rows=7), "PixelData has 160 bytes; Rows x Columns x BitsAllocated are 140"),
        (edited(Columns=11), "PixelData has 160 bytes"),
        (edited(Columns=65535, Rows=65535), "Rows and Columns are 65535"),
        (edited(BitsAllocated=None), "BitsAllocated .* is missing"),
        (edited(BitsAllocated=12), "BitsAllocated is 12, not 8, 16 or 32"),
        (edited(BitsAllocated=8), "PixelData has 160 bytes"),
        (edited(PixelRepresentation=None), "PixelRepresentation .* is missing"),
        (edited(PixelRepresentation=2), "PixelRepresentation is neither 0 nor 1"),
        (edited(PixelData=None), "has no PixelData"),
        (edited(RescaleSlope=0), "RescaleSlope is 0"),
        (edited(NumberOfFrames=3), "holds several frames"),
        (edited(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "enhanced CT"),
    ],
)
def test_one_odd_file_is_named_and_left_out_and_takes_nothing_along(tmp_path, caplog, edit, words):
    write_stack(tmp_path / "good")
    odd = stack()[0]
    reference = pydicom.dcmread(tmp_path / "good" / "IM0000.dcm")
    odd.SOPInstanceUID = reference.SOPInstanceUID
    odd.SeriesInstanceUID = reference.SeriesInstanceUID
    edit(odd)
    odd.save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    cases = find(tmp_path)
    assert [case.case_id for case in cases] == [reference.SeriesInstanceUID]
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels())
    (fault,) = left_out_of(cases)
    assert "odd.dcm" in fault
    with pytest.raises(InputError, match=words):
        raise InputError(fault, fix="")
    assert f"left out: {fault}" in caplog.text


RAW = {
    "a position with a letter": ("ImagePositionPatient", b"0\\0\\x"),
    "a position that is not a number": ("ImagePositionPatient", b"0\\0\\nan"),
    "a position beyond all numbers": ("ImagePositionPatient", b"0\\0\\1e999"),
    "a position with a second comma": ("ImagePositionPatient", b"0\\0\\1,000,5"),
    "a spacing with a unit": ("PixelSpacing", b"1.5 mm\\2.5 mm"),
    "a spacing with underscores": ("PixelSpacing", b"1_5\\2_5"),
    "a slope with a letter": ("RescaleSlope", b"one"),
    "an intercept that is two": ("RescaleIntercept", b"0\\1"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_malformed_number_is_named_with_its_element(tmp_path, name):
    keyword, content = RAW[name]
    write_stack(tmp_path / "good")
    stack()[0].save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    put_raw(tmp_path / "odd.dcm", keyword, content)
    (fault,) = left_out_of(find(tmp_path))
    assert f"odd.dcm: its {keyword} (" in fault


NOT_NEEDED = {
    "birth date": ("PatientBirthDate", b"1981/03/02", None),
    "UUID as a date": ("StudyDate", b"8c6f2f0e-90f1-4e0b", None),
    "date of the 99th": ("SeriesDate", b"20209999", None),
    "time": ("StudyTime", b"noon", None),
    "age": ("PatientAge", b"forty", None),
    "sex": ("PatientSex", b"unknown", None),
    "long identifier": ("PatientID", b"x" * 300, None),
    "bytes of no character set": ("PatientName", b"\xff\xfe\x80", None),
    "unknown character set": ("SpecificCharacterSet", b"ISO_IR 9999", None),
    "weight": ("PatientWeight", b"heavy", None),
    "instance number": ("InstanceNumber", b"1.5.2", None),
    "series number": ("SeriesNumber", b"", None),
    "thickness": ("SliceThickness", b"thin", None),
    "window": ("WindowCenter", b"a\\b", None),
    "acquisition number as a float": ("AcquisitionNumber", b"1.7", None),
    "rows as text": ("Rows", b"8", "IS"),
    "columns as 32 bits": ("Columns", (10).to_bytes(4, "little"), "UL"),
    "spacing as doubles": ("PixelSpacing", np.array([1.5, 2.5]).tobytes(), "FD"),
    "spacing as unknown bytes": ("PixelSpacing", b"1.5\\2.5", "UN"),
    "slope as a double": ("RescaleSlope", np.array([1.0]).tobytes(), "FD"),
    "decimal commas": ("PixelSpacing", b"1,5\\2,5", None),
    "exponents": ("PixelSpacing", b"+15e-1\\.25E1", None),
    "spaces and zeros": ("PixelSpacing", b" 1.5 \\ 2.5 \0", None),
    "frames": ("NumberOfFrames", b"one", None),
    "samples": ("SamplesPerPixel", b"", "US"),
    "stored bits": ("BitsStored", (99).to_bytes(2, "little"), "US"),
    "image type": ("ImageType", b"", None),
    "class": ("SOPClassUID", b"", None),
    "frame of reference": ("FrameOfReferenceUID", b"not a UID", None),
    "study": ("StudyInstanceUID", b"STUDY 7", None),
    "instance": ("SOPInstanceUID", b"", None),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", NOT_NEEDED)
@pytest.mark.parametrize(
    "where", ["in every file", pytest.param("in one file", marks=pytest.mark.long)]
)
def test_what_a_mask_does_not_need_never_costs_it(tmp_path, name, where):
    keyword, content, vr = NOT_NEEDED[name]
    write_stack(tmp_path / "in")
    paths = sorted((tmp_path / "in").iterdir())
    for path in paths if where == "in every file" else paths[2:3]:
        put_raw(path, keyword, content, vr)
    segments(tmp_path, ct_voxels() > 0)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    "keyword",
    [
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "SliceThickness",
        "InstanceNumber",
        "SeriesNumber",
        "ImageType",
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "RescaleSlope",
        "RescaleIntercept",
        "BitsStored",
        "HighBit",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Modality",
        "SeriesInstanceUID",
    ],
)
def test_elements_that_no_file_states_are_done_without(tmp_path, keyword):
    slices = stack()
    for image in slices:
        delattr(image, keyword)
    write(tmp_path / "in", slices)
    segments(tmp_path, ct_voxels() > 0)


def segments(tmp_path, mask):
    """Segment the one case of a folder, and find the mask in the SEG, slice by slice."""
    convention = conventions.get("dicom", labels={"liver": 1})
    cases = convention.find_cases(tmp_path / "in", 1)
    assert left_out_of(cases) == ()
    (case,) = cases
    volumes = convention.read_case(case)
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, ct_voxels())
    path = convention.write_mask(case, mask.astype(np.uint8), volumes, tmp_path / "out")
    assert path.parent == tmp_path / "out"
    with disable_value_validation():
        seg = pydicom.dcmread(path)
        assert seg.StudyInstanceUID
        assert seg.FrameOfReferenceUID
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    heights = [
        float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        for item in seg.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(heights) == [4.0 * k for k in range(len(mask))]
    frames = seg.pixel_array.reshape(mask.shape)
    np.testing.assert_array_equal(frames[np.argsort(heights)], mask)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "uid", ["../../escaped/ANON 1", "/etc/x", "a\0b", "名前", "..", "-rf", "x" * 64]
)
def test_a_name_from_a_header_stays_in_the_output_folder(tmp_path, uid):
    write(tmp_path / "in", stack(SpecificCharacterSet="ISO_IR 192"))
    for path in (tmp_path / "in").iterdir():
        put_raw(path, "SeriesInstanceUID", uid.encode())
    segments(tmp_path, ct_voxels() > 0)
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_one_identifier_for_all_slices_loses_none(tmp_path):
    write(tmp_path / "in", stack(SOPInstanceUID="1.2.3"))
    segments(tmp_path, ct_voxels() > 0)


def test_a_file_that_is_cut_off_or_has_no_preamble_is_named_or_read(tmp_path):
    write_stack(tmp_path, 8)
    first, last = tmp_path / "IM0000.dcm", tmp_path / "IM0007.dcm"
    first.write_bytes(first.read_bytes()[132:])
    whole = last.read_bytes()
    for length in (0, 100, 140, 400, len(whole) - 200, len(whole) - 1):
        last.write_bytes(whole[:length])
        cases = find(tmp_path)
        np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels(8)[:7])
        (fault,) = left_out_of(cases)
        assert "IM0007.dcm" in fault


def test_a_slice_lost_in_the_middle_makes_a_gap_that_names_the_series(tmp_path):
    write_stack(tmp_path, 8)
    path = tmp_path / "IM0004.dcm"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"IM0004.dcm: is cut off .*and 1 more"):
        find(tmp_path)


@pytest.mark.quick(2)
@pytest.mark.parametrize("meta", [True, False], ids=["no preamble", "no preamble and no group 2"])
@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_preamble_are_read(tmp_path, meta, implicit):
    slices = stack()
    if implicit:
        for image in slices:
            image.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    write(tmp_path / "in", slices)
    for path in (tmp_path / "in").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[132 if meta else content.index(b"\x08\x00\x08\x00") :])
    segments(tmp_path, ct_voxels() > 0)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "syntax",
    [
        pydicom.uid.ImplicitVRLittleEndian,
        pydicom.uid.ExplicitVRBigEndian,
        pydicom.uid.DeflatedExplicitVRLittleEndian,
        pydicom.uid.RLELossless,
    ],
    ids=["implicit", "big endian", "deflated", "run-length"],
)
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path, syntax):
    slices = stack()
    for image in slices:
        if syntax == pydicom.uid.RLELossless:
            image.compress(syntax)
        elif syntax == pydicom.uid.ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
        image.file_meta.TransferSyntaxUID = syntax
    (tmp_path / "in").mkdir()
    for k, image in enumerate(slices):
        pydicom.dcmwrite(tmp_path / "in" / str(k), image, enforce_file_format=True)
    segments(tmp_path, ct_voxels() > 0)


def test_sequences_nested_beyond_all_recursion_are_skipped(tmp_path):
    write_stack(tmp_path / "in")
    deep = 1_200
    start = b"\x09\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    for path in (tmp_path / "in").iterdir():
        content = path.read_bytes()
        at = content.index(b"\x10\x00\x10\x00PN")
        path.write_bytes(content[:at] + start * deep + end * deep + content[at:])
    segments(tmp_path, ct_voxels() > 0)


def test_what_is_no_image_of_a_volume_is_left_alone_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_stack(tmp_path / "ct")
    write_stack(tmp_path / "copies")
    shutil.copytree(tmp_path / "ct", tmp_path / "again")
    scouts = stack(4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(tmp_path / "scout", scouts)
    report = stack(3, Modality="SR")
    write(tmp_path / "report", report)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "DICOMDIR").write_bytes(b"\x08\x00 and then something else")
    cases = find(tmp_path)
    assert len(cases) == 2
    assert left_out_of(cases) == ()
    for words in ("6 copies of a slice", "4 scouts", "3 SR objects", "2 files that are not DICOM"):
        assert words in caplog.text


def test_archives_that_nothing_here_unpacks_are_told(tmp_path):
    (tmp_path / "study.rar").write_bytes(b"Rar!\x1a\x07 and more")
    with pytest.raises(InputError, match="study.rar: is an archive of a kind that is not"):
        find(tmp_path)
    write_stack(tmp_path)
    (tmp_path / "IM0005.dcm").rename(tmp_path / "IM0005.dcm.gz")
    (tmp_path / "IM0005.dcm.gz").write_bytes(b"\x1f\x8b and more")
    cases = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels()[:5])
    assert ["IM0005.dcm.gz" in fault for fault in left_out_of(cases)] == [True, False]


@pytest.mark.parametrize("content", [b"", bytes(2000), b"<html>404</html>", bytes(100)])
def test_a_slice_that_became_another_file_is_named_though_no_name_ends_in_dcm(tmp_path, content):
    write_stack(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_suffix(""))
    (tmp_path / "IM0005").write_bytes(content)
    (tmp_path / "README").write_text("hello")
    cases = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels()[:5])
    (fault,) = left_out_of(cases)
    assert "IM0005: is named as the slices beside it are, and is not DICOM" in fault


def test_a_mosaic_is_no_slice(tmp_path):
    mosaics = stack(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    write(tmp_path, mosaics)
    with pytest.raises(InputError, match="IM0000.dcm: is a mosaic"):
        find(tmp_path)


def test_patients_that_share_all_identifiers_are_cases_of_their_own(tmp_path):
    uid = generate_uid()
    one, other = stack(4, uid), stack(4, uid, PatientID="2")
    for k, image in enumerate(other):
        image.ImagePositionPatient = [0, 0, 4 * (4 + k)]
    write(tmp_path, one + other)
    assert [voxels_of(case).shape[0] for case in find(tmp_path)] == [4, 4]
    odd = stack(8, uid)
    odd[3].PatientID = "3"
    write(tmp_path, odd)
    (case,) = find(tmp_path)
    (volume,) = conventions.get("dicom").read_case(case)
    assert volume.warnings == ("its PatientID differs from slice to slice",)


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({"ImagesInAcquisition": 9}, "its ImagesInAcquisition is 9, and 6 are here"),
        ({"NumberOfSlices": 7}, "its NumberOfSlices is 7, and 6 are here: some may be missing"),
        ({"RescaleSlope": -1}, "its RescaleSlope is negative"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation is PALETTE"),
    ],
)
def test_what_a_usual_series_does_not_say_is_told(tmp_path, elements, note):
    write(tmp_path, stack(**elements))
    (volume,) = conventions.get("dicom").read_case(find(tmp_path)[0])
    assert any(note in each for each in volume.warnings)


def test_frames_of_reference_that_differ_are_told(tmp_path):
    slices = stack()
    for image in slices:
        image.FrameOfReferenceUID = generate_uid()
    write(tmp_path, slices)
    (volume,) = conventions.get("dicom").read_case(find(tmp_path)[0])
    assert volume.warnings == ("its FrameOfReferenceUID differs from slice to slice",)


def pack(folder, path, form="zip"):
    """Pack what a folder holds, and remove the folder."""
    made = shutil.make_archive(str(folder), form, folder)
    shutil.rmtree(folder)
    Path(made).rename(path)


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.zip", "zip"), ("a.tar", "tar"), ("a.tgz", "gztar"), ("a.xz", "xztar"), ("a", "zip")],
)
def test_series_in_an_archive_are_those_of_its_folder(tmp_path, monkeypatch, name, form):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_stack(tmp_path / "in" / "x")
    (plain,) = find(tmp_path / "in")
    wanted = voxels_of(plain)
    pack(tmp_path / "in" / "x", tmp_path / "in" / name, form)
    before = (tmp_path / "in" / name).read_bytes()
    cases = find(tmp_path / "in")
    (case,) = cases
    np.testing.assert_array_equal(voxels_of(case), wanted)
    assert case.case_id == plain.case_id
    assert case.channels[0].name == name
    assert left_out_of(cases) == ()
    conventions.give_up(cases)
    assert [each.name for each in tmp_path.iterdir()] == ["in"]
    assert [each.name for each in (tmp_path / "in").iterdir()] == [name]
    assert (tmp_path / "in" / name).read_bytes() == before


def test_a_bad_archive_is_left_out_and_named_and_nothing_of_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_stack(tmp_path / "in" / "x")
    write_stack(tmp_path / "in" / "y")
    pack(tmp_path / "in" / "y", tmp_path / "in" / "cut.zip")
    whole = (tmp_path / "in" / "cut.zip").read_bytes()
    (tmp_path / "in" / "cut.zip").write_bytes(whole[:-90])
    with zipfile.ZipFile(tmp_path / "in" / "evil.zip", "w") as archive:
        archive.writestr("../../outside.dcm", "gotcha")
    cases = find(tmp_path / "in")
    assert len(cases) == 1
    evil, cut = sorted(left_out_of(cases), key=lambda text: "cut.zip" in text)
    assert f"{tmp_path / 'in' / 'cut.zip'}: " in cut
    assert f"{tmp_path / 'in' / 'evil.zip'}: " in evil
    conventions.give_up(cases)
    assert [each.name for each in tmp_path.iterdir()] == ["in"]
    shutil.rmtree(tmp_path / "in" / "x")
    with pytest.raises(InputError, match=r"cut.zip"):
        find(tmp_path / "in")
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


def test_an_archive_within_an_archive_is_left_alone_and_all_together_are_bounded(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_stack(tmp_path / "in" / "x" / "y")
    pack(tmp_path / "in" / "x" / "y", tmp_path / "in" / "x" / "inner.zip")
    write_stack(tmp_path / "in" / "x")
    pack(tmp_path / "in" / "x", tmp_path / "in" / "outer.zip")
    cases = find(tmp_path / "in")
    assert len(cases) == 1
    assert "1 archives within an archive" in caplog.text
    conventions.give_up(cases)
    with Unpacked(UnpackLimits(most_files=12)) as unpacked:
        assert len(list(unpacked.add(tmp_path / "in" / "outer.zip").iterdir())) == 7
        with pytest.raises(InputError, match="outer.zip: holds more than 5 files"):
            unpacked.add(tmp_path / "in" / "outer.zip")


def test_too_few_slices_and_files_that_only_look_like_dicom_are_named(tmp_path):
    write_stack(tmp_path / "ct")
    write_stack(tmp_path / "two", 2)
    (tmp_path / "fake.dcm").write_text("<html>")
    faults = left_out_of(find(tmp_path))
    assert any("has 2 slices" in each and "IM0001.dcm" in each for each in faults)
    assert any("fake.dcm: is not a DICOM file" in each for each in faults)
    assert len(faults) == 2


def test_slices_exported_twice_under_new_identifiers_count_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    slices = stack()
    write(tmp_path / "once", slices)
    for image in slices:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    write(tmp_path / "twice", slices)
    cases = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels())
    assert left_out_of(cases) == ()
    assert "6 copies of a slice" in caplog.text


def test_an_image_of_another_kind_among_the_slices_is_named_and_costs_nothing(tmp_path):
    slices = stack()
    write(tmp_path / "in", slices)
    odd = slices[2]
    odd.SOPInstanceUID, odd.ImageType = generate_uid(), ["DERIVED", "SECONDARY", "MIP"]
    odd.PixelData = np.full((8, 10), 9, np.int16).tobytes()
    odd.save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    cases = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels())
    (fault,) = left_out_of(cases)
    assert "odd.dcm" in fault


def test_another_version_of_a_slice_is_named(tmp_path):
    slices = stack()
    write(tmp_path / "ct", slices)
    slices[3].PixelData = np.zeros((8, 10), np.int16).tobytes()
    slices[3].save_as(tmp_path / "z.dcm", enforce_file_format=True)
    cases = find(tmp_path)
    np.testing.assert_array_equal(voxels_of(cases[0]), ct_voxels())
    (fault,) = left_out_of(cases)
    assert "z.dcm: is another version of IM0003.dcm" in fault


def test_a_scale_that_some_slices_lack_is_refused(tmp_path):
    slices = stack(RescaleSlope=2)
    del slices[3].RescaleSlope
    write(tmp_path, slices)
    with pytest.raises(InputError, match=r"IM0003.dcm: its RescaleSlope is missing"):
        find(tmp_path)


def test_a_ct_without_a_scale_is_warned_of(tmp_path):
    slices = stack(RescaleType="OD")
    for image in slices:
        del image.RescaleIntercept
    write(tmp_path, slices)
    (volume,) = conventions.get("dicom").read_case(find(tmp_path)[0])
    assert "has no RescaleIntercept: 0 is taken" in volume.warnings
    assert "its RescaleType is OD, not HU" in volume.warnings


def test_a_pet_and_a_ct_go_together_though_one_states_no_frame_of_reference(tmp_path):
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    write_series(tmp_path / "ct", ct_voxels(), FrameOfReferenceUID="")
    (case,) = find(tmp_path, 2)
    assert [path.name for path in case.channels] == ["ct", "pet"]


def test_a_pet_without_its_ct_is_named_beside_one_that_has_it(tmp_path):
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    write_series(tmp_path / "ct", ct_voxels())
    other = pet_elements(SeriesDescription="late", FrameOfReferenceUID="1.2.3")
    write_series(tmp_path / "late", ct_voxels(), "PT", **other)
    cases = find(tmp_path, 2)
    assert len(cases) == 1
    (fault,) = left_out_of(cases)
    assert "PT 'late' has no CT of the same study and frame of reference" in fault


@pytest.mark.quick(2)
@pytest.mark.parametrize("modality", ["ct", "CT ", "", "NM", "CT\\CT", "\x1b[31m"])
def test_the_class_of_an_image_says_what_it_is_where_the_modality_does_not(tmp_path, modality):
    write_stack(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        put_raw(path, "Modality", modality.encode())
    segments(tmp_path, ct_voxels() > 0)


def test_the_directory_file_of_a_disc_is_left_alone(tmp_path):
    write_stack(tmp_path / "ct")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    directory = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    directory.FileSetID = "DISC"
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert left_out_of(find(tmp_path)) == ()


def test_a_pet_that_does_not_say_what_it_is_corrected_for_is_named(tmp_path):
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements(CorrectedImage=""))
    write_series(tmp_path / "ct", ct_voxels())
    with pytest.raises(InputError, match="CorrectedImage is missing or empty"):
        find(tmp_path, 2)


def test_a_description_cannot_write_to_the_terminal(tmp_path):
    write(tmp_path, stack(2, SeriesDescription="x"))
    for path in tmp_path.iterdir():
        put_raw(path, "SeriesDescription", b"\x1b[2J\nerror: all is well")
    with pytest.raises(InputError, match="has 2 slices") as refusal:
        find(tmp_path)
    assert str(refusal.value).isprintable()


def test_a_case_is_the_part_of_its_folder_that_its_slices_are(tmp_path):
    write_stack(tmp_path)
    for k, image in enumerate(stack(2)):
        image.save_as(tmp_path / f"other{k}.dcm", enforce_file_format=True)
    convention = conventions.get("dicom")
    (case,) = convention.find_cases(tmp_path, 1)
    assert conventions.share_of(convention, case) == pytest.approx(0.75, abs=0.01)


def test_an_image_of_another_modality_that_cannot_be_used_is_none_of_a_ct_s_business(tmp_path):
    write_stack(tmp_path / "ct")
    write(tmp_path / "mr", stack(3, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Rows=0))
    assert left_out_of(find(tmp_path)) == ()
    assert len(left_out_of(find(tmp_path / "ct"))) == 0
    with pytest.raises(InputError, match="no MR to segment .*Rows and Columns are 0 and 10"):
        find(tmp_path, 1, {"modalities": ["MR"]})


def test_three_slices_of_one_row_are_a_volume_and_are_all_named_where_they_are_not(tmp_path):
    thin = [slice_of(np.ones((1, 9)), (0, 0, 4 * k), "1.2.3", k) for k in range(3)]
    write(tmp_path, thin)
    (case,) = find(tmp_path)
    assert voxels_of(case).shape == (3, 1, 9)
    for image in thin:
        image.ImagePositionPatient = [0, 0, 0]
        image.PixelData = np.random.default_rng(image.InstanceNumber).bytes(18)
    write(tmp_path, thin)
    with pytest.raises(InputError, match=r"3 files: IM0000.dcm, IM0001.dcm, IM0002.dcm\]"):
        find(tmp_path)


def test_what_is_named_with_its_folder_is_taken_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_stack(tmp_path / "study" / "ct")
    with zipfile.ZipFile(tmp_path / "study" / "other.zip", "w") as archive:
        write_stack(tmp_path / "packed")
        for path in (tmp_path / "packed").iterdir():
            archive.write(path, path.name)
    study = tmp_path / "study"
    named = [study, study / "ct", study / "ct" / "IM0002.dcm", study / "other.zip"]
    cases = conventions.get("dicom").find_in(named, 1)
    assert [len(case.series[0].slices) for case in cases] == [6, 6]
    assert caplog.text.count("is unpacked") == 1
    assert "left alone" not in caplog.text
    conventions.give_up(cases)
