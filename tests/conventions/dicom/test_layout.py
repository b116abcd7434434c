from __future__ import annotations

import re

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.config import disable_value_validation
from pydicom.uid import generate_uid

from flarekit import conventions
from flarekit.conventions import left_out_of
from flarekit.core.errors import InputError, OutputError, PredictorError
from tests.conventions.dicom.dicom_files import (
    DOSE_BQ,
    LABELS,
    STUDY,
    WEIGHT_KG,
    ct_voxels,
    pet_elements,
    slice_of,
    suv_per_bqml,
    tracer,
    write_series,
)


def read(folder, channels=1, settings=None):
    convention = conventions.get("dicom", settings, labels=LABELS)
    (case,) = convention.find_cases(folder, channels)
    return convention.read_case(case)


def test_a_series_is_read_as_simpleitk_reads_it(tmp_path):
    voxels = ct_voxels()
    uid = write_series(tmp_path, voxels, RescaleIntercept=-24, RescaleSlope=2)
    (volume,) = read(tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path), uid))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.voxels_ZYX, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_array_equal(volume.voxels_ZYX, voxels * 2 - 24)
    assert volume.voxels_ZYX.dtype == np.int16
    for index in ((0, 0, 0), (9, 7, 5)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((volume.geometry.affine @ [*index, 1])[:3], lps * [-1, -1, 1])
    assert volume.geometry.spacing_mm_ZYX == (4.0, 1.5, 2.5)


def test_an_oblique_series_has_its_own_axes(tmp_path):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    normal = np.array([0, -sine, cosine])
    positions = [(normal * 4 * k).tolist() for k in range(5)]
    uid = generate_uid()
    for k, position in enumerate(positions):
        image = slice_of(ct_voxels()[k], position, uid, k)
        image.ImageOrientationPatient = [1, 0, 0, 0, float(cosine), float(sine)]
        image.save_as(tmp_path / f"{9 - k}.dcm", enforce_file_format=True)
    (volume,) = read(tmp_path)
    np.testing.assert_array_equal(volume.voxels_ZYX, ct_voxels()[:5])
    np.testing.assert_allclose(volume.geometry.affine[:3, 2], normal * 4 * [-1, -1, 1], atol=1e-9)


def test_a_compression_that_pydicom_cannot_undo_is_left_to_itk(tmp_path):
    write_series(tmp_path, np.tile(ct_voxels(), (1, 8, 8)))
    (plain,) = read(tmp_path)
    for path in tmp_path.iterdir():
        image = SimpleITK.ReadImage(str(path))
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetCompressor("JPEG2000")
        writer.UseCompressionOn()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path))
        writer.Execute(image)
    compressed = pydicom.dcmread(next(tmp_path.iterdir())).file_meta.TransferSyntaxUID
    assert compressed.is_compressed
    (volume,) = read(tmp_path)
    np.testing.assert_array_equal(volume.voxels_ZYX, plain.voxels_ZYX)


def test_slopes_that_change_from_slice_to_slice_are_applied_slice_by_slice(tmp_path):
    voxels = ct_voxels(4)
    slopes = [0.5, 1.25, 2.0, 3.5]
    write_series(tmp_path, voxels, RescaleSlope=slopes, RescaleIntercept=0.25)
    (volume,) = read(tmp_path)
    expected = voxels * np.array(slopes)[:, None, None] + 0.25
    np.testing.assert_allclose(volume.voxels_ZYX, expected)
    assert volume.voxels_ZYX.dtype == np.float32


def test_a_study_s_pet_becomes_suv_and_its_ct_lies_on_the_pet_s_grid(tmp_path):
    write_series(tmp_path / "CT", np.full((12, 8, 10), 40), gap=2.0)
    pet = np.random.default_rng(2).integers(0, 20000, (6, 8, 10))
    slopes = [0.5 + 0.1 * k for k in range(6)]
    write_series(tmp_path / "PET", pet, "PT", **pet_elements(RescaleSlope=slopes))
    ct, suv = read(tmp_path, 2)
    expected = pet * np.array(slopes)[:, None, None] * suv_per_bqml()
    np.testing.assert_allclose(suv.voxels_ZYX, expected, rtol=1e-5)
    assert ct.voxels_ZYX.shape == pet.shape
    np.testing.assert_array_equal(ct.geometry.affine, suv.geometry.affine)
    assert set(np.unique(ct.voxels_ZYX)) == {40}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"DecayCorrection": "ADMIN"}, WEIGHT_KG * 1000 / DOSE_BQ),
        ({"Units": "GML"}, 1.0),
        ({"SeriesTime": "110000", "AcquisitionTime": "093000.5"}, suv_per_bqml()),
        ({"AcquisitionTime": ["094000", "093500", "093000.5"]}, suv_per_bqml()),
        (
            {"SeriesTime": "000500.5", "AcquisitionTime": "000500.5", "injected": "233000.5"},
            suv_per_bqml(2100),
        ),
    ],
)
def test_suv_follows_from_the_tags(tmp_path, changes, expected):
    changes = dict(changes)
    injected = changes.pop("injected", "083000.5")
    sequence = tracer(RadiopharmaceuticalStartTime=injected)
    elements = pet_elements(RadiopharmaceuticalInformationSequence=sequence, **changes)
    write_series(tmp_path, np.full((3, 8, 10), 1000), "PT", **elements)
    (suv,) = read(tmp_path, 1, {"modalities": ["PT"]})
    np.testing.assert_allclose(suv.voxels_ZYX, 1000 * expected, rtol=1e-5)


def test_a_start_with_its_own_date_is_taken_as_it_is(tmp_path):
    sequence = tracer(RadiopharmaceuticalStartDateTime="20240105080000.000000+0100")
    elements = pet_elements(RadiopharmaceuticalInformationSequence=sequence)
    write_series(tmp_path, np.full((3, 8, 10), 1000), "PT", **elements)
    (suv,) = read(tmp_path, 1, {"modalities": ["PT"]})
    np.testing.assert_allclose(suv.voxels_ZYX, 1000 * suv_per_bqml(5400.5), rtol=1e-5)


@pytest.mark.parametrize(("element", "expected"), [(0x1000, 0.02), (0x1009, 0.02 * suv_per_bqml())])
def test_counts_of_philips_are_scaled_by_its_private_elements(tmp_path, element, expected):
    write_series(tmp_path, np.full((3, 8, 10), 1000), "PT", **pet_elements(Units="CNTS"))
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        image.private_block(0x7053, "Philips PET Private Group", create=True).add_new(
            element & 0xFF, "DS", "0.02"
        )
        image.save_as(path)
    (suv,) = read(tmp_path, 1, {"modalities": ["PT"]})
    np.testing.assert_allclose(suv.voxels_ZYX, 1000 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PatientWeight": None}, "PatientWeight .* is empty"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=0)}, "TotalDose"),
        (
            {"RadiopharmaceuticalInformationSequence": pydicom.Sequence([])},
            "TotalDose .* is missing",
        ),
        ({"Units": "PROPCNT"}, "Units are PROPCNT"),
        ({"Units": "CNTS"}, "in counts"),
        ({"Units": "GML", "SUVType": "LBM"}, "SUV is by LBM"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"CorrectedImage": "ATTN"}, "does not list DECY"),
        ({"AcquisitionTime": None, "SeriesTime": None}, "AcquisitionTime are missing"),
    ],
)
def test_a_pet_without_suv_is_an_error_that_names_the_element(tmp_path, changes, words):
    write_series(tmp_path, np.full((3, 8, 10), 9), "PT", **pet_elements(**changes))
    with pytest.raises(InputError, match=f"SUV cannot be computed: .*{words}"):
        read(tmp_path, 1, {"modalities": ["PT"]})


def test_a_pet_without_attenuation_correction_and_a_scout_are_left_alone(tmp_path):
    write_series(tmp_path / "ct", ct_voxels())
    write_series(
        tmp_path / "scout",
        ct_voxels(),
        ImageType=pydicom.multival.MultiValue(str, ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    write_series(tmp_path / "nac", ct_voxels(), "PT", **pet_elements(CorrectedImage="DECY"))
    uid = write_series(tmp_path / "ac", ct_voxels(), "PT", **pet_elements())
    (tmp_path / "readme.txt").write_text("hello")
    (case,) = conventions.get("dicom").find_cases(tmp_path, 2)
    assert case.case_id == uid
    assert [path.name for path in case.channels] == ["ct", "ac"]


def test_a_study_whose_only_pet_is_not_corrected_for_attenuation_is_left_out_with_the_reason(
    tmp_path,
):
    reason = "PT 'PT' is not corrected for attenuation.*lists DECY, SCAT, not ATTN"
    uncorrected = pet_elements(
        CorrectedImage=pydicom.multival.MultiValue(str, ["DECY", "SCAT"]),
        StudyInstanceUID="1.2.3.4",
    )
    write_series(tmp_path / "nac", ct_voxels(), "PT", **uncorrected)
    write_series(tmp_path / "ct_of_it", ct_voxels(), StudyInstanceUID="1.2.3.4")
    with pytest.raises(InputError, match="no CT with PT to segment") as caught:
        conventions.get("dicom").find_cases(tmp_path, 2)
    assert re.search(f"{tmp_path / 'nac'}: {reason}", caught.value.fix)
    write_series(tmp_path / "ct", ct_voxels())
    write_series(tmp_path / "ac", ct_voxels(), "PT", **pet_elements())
    cases = conventions.get("dicom").find_cases(tmp_path, 2)
    assert len(cases) == 1
    (told,) = conventions.left_out_of(cases)
    assert re.search(reason, told)


def test_of_several_cts_the_one_that_covers_the_pet_is_taken(tmp_path, caplog):
    neck = {"origin": (-10, 20, -284), "SeriesDescription": "neck"}
    write_series(tmp_path / "neck", ct_voxels(9), **neck)
    write_series(tmp_path / "body", ct_voxels(9), SeriesDescription="body")
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    (case,) = conventions.get("dicom").find_cases(tmp_path, 2)
    assert case.channels[0].name == "body"
    assert "'body' goes with" in caplog.text


def test_a_ct_elsewhere_is_no_partner_and_one_that_covers_a_part_is_told(tmp_path):
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    write_series(tmp_path / "ct", ct_voxels(), origin=(-10, 20, 900))
    convention = conventions.get("dicom")
    with pytest.raises(InputError) as caught:
        convention.find_cases(tmp_path, 2)
    assert "has no CT of the same study and frame of reference that covers any" in caught.value.fix
    write_series(tmp_path / "part", ct_voxels(3))
    (case,) = convention.find_cases(tmp_path, 2)
    ct, _ = convention.read_case(case)
    assert "it covers 50% of the mask's grid, the rest is taken for -1024" in ct.warnings[-1]


def test_the_only_ct_of_a_pet_is_taken_without_a_word(tmp_path, caplog):
    write_series(tmp_path / "body", ct_voxels(9))
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    conventions.get("dicom").find_cases(tmp_path, 2)
    assert "goes with" not in caplog.text


def test_every_ct_is_a_case_of_a_predictor_with_one_channel(tmp_path):
    uids = {write_series(tmp_path / name, ct_voxels()) for name in "ab"}
    write_series(tmp_path / "pet", ct_voxels(), "PT", **pet_elements())
    assert {case.case_id for case in conventions.get("dicom").find_cases(tmp_path, 1)} == uids


def test_copies_of_a_slice_count_once(tmp_path):
    write_series(tmp_path / "a", ct_voxels())
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").iterdir():
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    (volume,) = read(tmp_path)
    np.testing.assert_array_equal(volume.voxels_ZYX, ct_voxels())


def test_missing_slices_and_several_at_one_position_are_errors(tmp_path):
    uid = write_series(tmp_path / "gap", ct_voxels())
    for path in (tmp_path / "gap").iterdir():
        if pydicom.dcmread(path).ImagePositionPatient[2] == -292.0:
            path.unlink()
    convention = conventions.get("dicom")
    with pytest.raises(InputError, match="lacks slices: 1 gaps are not 4 mm .up to 8 mm"):
        convention.find_cases(tmp_path / "gap", 1)
    for phase in range(2):
        folder = tmp_path / "phases"
        folder.mkdir(exist_ok=True)
        for k in range(4):
            image = slice_of(ct_voxels()[k] + phase, (0, 0, 4 * k), uid, k)
            image.save_as(folder / f"{phase}-{k}", enforce_file_format=True)
    with pytest.raises(InputError, match="several slices at one position"):
        convention.find_cases(tmp_path / "phases", 1)


def test_a_broken_series_does_not_take_others_along(tmp_path, caplog):
    write_series(tmp_path / "good", ct_voxels())
    write_series(tmp_path / "bad", ct_voxels())
    for path in (tmp_path / "bad").iterdir():
        if pydicom.dcmread(path).ImagePositionPatient[2] == -292.0:
            path.unlink()
    (case,) = conventions.get("dicom").find_cases(tmp_path, 1)
    assert case.channels[0].name == "good"
    assert "lacks slices" in caplog.text


def test_no_series_says_what_there_is(tmp_path):
    convention = conventions.get("dicom")
    with pytest.raises(InputError, match="not a folder"):
        convention.find_cases(tmp_path / "none", 1)
    with pytest.raises(InputError, match="no CT to segment .series: none"):
        convention.find_cases(tmp_path, 1)
    write_series(tmp_path, ct_voxels(), "PT", SeriesDescription="PET WB", **pet_elements())
    with pytest.raises(InputError, match="no CT with PT to segment .series: PT 'PET WB'"):
        convention.find_cases(tmp_path, 2)
    with pytest.raises(PredictorError, match="modalities of 3 channels"):
        convention.find_cases(tmp_path, 3)
    with pytest.raises(PredictorError, match="two channels have the same modality"):
        conventions.get("dicom", {"modalities": ["MR", "MR"]})


def test_a_damaged_slice_is_named(tmp_path):
    write_series(tmp_path, ct_voxels())
    path = tmp_path / "IM0002"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="IM0002: is cut off"):
        read(tmp_path)


def segment(folder, output, label_map):
    convention = conventions.get("dicom", labels=LABELS)
    (case,) = convention.find_cases(folder, 1)
    volumes = convention.read_case(case)
    path = convention.write_mask(case, label_map, volumes[0].geometry, output)
    return case, path


def test_a_slice_of_another_size_is_left_out_with_its_size(tmp_path):
    write_series(tmp_path, ct_voxels())
    path = max(tmp_path.iterdir(), key=lambda each: pydicom.dcmread(each).ImagePositionPatient[2])
    image = pydicom.dcmread(path)
    image.Columns, image.PixelData = 5, image.PixelData[: 8 * 5 * 2]
    image.save_as(path)
    cases = conventions.get("dicom", labels=LABELS).find_cases(tmp_path, 1)
    (said,) = left_out_of(cases)
    assert "1 slices of Rows x Columns 8 x 5, at least 3 are needed" in said
    assert path.name in said


@pytest.mark.parametrize("length", [64, 65])
def test_an_identifier_is_kept_as_far_as_it_can_be_written(length, tmp_path):
    study = "1." + "2" * (length - 2)
    with disable_value_validation():
        write_series(tmp_path / "in", ct_voxels(), StudyInstanceUID=study)
    _, path = segment(tmp_path / "in", tmp_path / "out", np.ones((6, 8, 10), np.uint8))
    kept = pydicom.dcmread(path).StudyInstanceUID
    assert (kept == study, len(kept) <= 64) == (length == 64, True)


def test_a_segmentation_refers_to_its_slices_and_holds_the_labels(tmp_path):
    uid = write_series(tmp_path / "in", ct_voxels())
    label_map = np.zeros((6, 8, 10), np.uint8)
    label_map[1, 2:5, 3:7] = 1
    label_map[4:, 1, 2] = 3
    label_map[2, 7, 9] = 14
    case, path = segment(tmp_path / "in", tmp_path / "out", label_map)
    assert path == tmp_path / "out" / f"{uid}.dcm"
    seg = pydicom.dcmread(path)
    assert (seg.Modality, seg.StudyInstanceUID) == ("SEG", STUDY)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == uid
    names = [segment.SegmentLabel for segment in seg.SegmentSequence]
    assert names == list(LABELS)
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in seg.SegmentSequence]
    assert codes == ["10200004", "64033007", "52988006", "85756007"]
    rebuilt = np.zeros_like(label_map)
    heights = {round(float(each.position_mm[2]), 3): k for k, each in enumerate(case.grid.slices)}
    frames = seg.pixel_array.reshape(-1, 8, 10)
    for frame, facts in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        height = facts.PlanePositionSequence[0].ImagePositionPatient[2]
        number = facts.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        rebuilt[heights[round(float(height), 3)]][frame > 0] = list(LABELS.values())[number - 1]
    np.testing.assert_array_equal(rebuilt, label_map)


def test_simpleitk_finds_a_segmentation_in_the_patient_where_the_series_is(tmp_path):
    write_series(tmp_path / "in", ct_voxels())
    label_map = np.zeros((6, 8, 10), np.uint8)
    label_map[:, 3, 4] = 1
    _, path = segment(tmp_path / "in", tmp_path / "out", label_map)
    image = SimpleITK.ReadImage(str(path))
    voxels = SimpleITK.GetArrayFromImage(image)
    (volume,) = read(tmp_path / "in")
    k, j, i = np.argwhere(voxels)[0].tolist()
    lps = np.array(image.TransformIndexToPhysicalPoint((i, j, k)))
    places = [(volume.geometry.affine @ [4, 3, z, 1])[:3] * [-1, -1, 1] for z in range(6)]
    assert min(np.linalg.norm(lps - place) for place in places) < 1e-3


def test_an_anonymised_series_gets_a_segmentation_too(tmp_path):
    write_series(tmp_path / "in", ct_voxels())
    for path in (tmp_path / "in").iterdir():
        image = pydicom.dcmread(path)
        for keyword in ("PatientID", "PatientName", "PatientSex", "StudyID", "AccessionNumber"):
            delattr(image, keyword)
        image.save_as(path)
    _, path = segment(tmp_path / "in", tmp_path / "out", np.ones((6, 8, 10), np.uint8))
    assert pydicom.dcmread(path).PatientID in ("", None)


def test_nothing_found_is_a_segmentation_without_voxels(tmp_path):
    write_series(tmp_path / "in", ct_voxels())
    _, path = segment(tmp_path / "in", tmp_path / "out", np.zeros((6, 8, 10), np.uint8))
    assert not pydicom.dcmread(path).pixel_array.any()


def test_the_same_mask_has_the_same_identifiers_and_another_has_others(tmp_path):
    write_series(tmp_path / "in", ct_voxels())
    uids = []
    for value in (0, 0, 1):
        label_map = np.full((6, 8, 10), value, np.uint8)
        _, path = segment(tmp_path / "in", tmp_path / "out", label_map)
        uids.append(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_a_failed_case_leaves_no_segmentation(tmp_path):
    write_series(tmp_path / "in", ct_voxels())
    convention = conventions.get("dicom")
    (case,) = convention.find_cases(tmp_path / "in", 1)
    with pytest.raises(OutputError, match="the case failed"):
        convention.write_empty_mask(case, tmp_path / "out")
    assert not (tmp_path / "out").exists()
