"""What else a mask of a DICOM series is written as, and what its objects say of it."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from typer.testing import CliRunner

from flarekit import conventions
from flarekit.cli.main import app
from flarekit.core.colours import colour_of
from flarekit.core.errors import UsageError
from flarekit.segmentation.folder import Options, segment_folder
from tests.conventions.dicom.dicom_files import write_series
from tests.conventions.dicom.test_outlines import rasterised

LABELS = {"left kidney": 3, "adrenal_gland_right": 5, "liver": 9, "absent": 11}
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = [0.8, 0.6, 0, 0, 0, -1]


@pytest.fixture
def mask():
    """A ring, two parts, an island in a hole; none is symmetric."""
    y, x = np.mgrid[:60, :80]
    label_map = np.zeros((8, 60, 80), np.uint8)
    for z in range(1, 7):
        away = np.hypot(y - 24, 0.9 * (x - 30))
        label_map[z][(away < 18) & (away > 9 - z / 2)] = 3
        label_map[z][away < 2] = 3
        label_map[z][np.hypot(y - 40, x - 62) < 9] = 5
        label_map[z][(y > 50) & (x < 14 + z)] = 5
    label_map[3, 10:12, 70:75] = 9
    return label_map


@pytest.fixture(params=["axial", "oblique"])
def series(request, tmp_path):
    folder = tmp_path / "series"
    further = {"ImageOrientationPatient": [OBLIQUE] * 8} if request.param == "oblique" else {}
    voxels = np.zeros((8, 60, 80), np.int16)
    if further:
        origins = [[float(-0.6 * 4 * k), float(0.8 * 4 * k), 7.0] for k in range(8)]
        further["ImagePositionPatient"] = origins
    write_series(folder, voxels, **further)
    return folder


def written(folder, label_map, out, also=("rtstruct", "nifti")):
    settings = {"also": list(also), "predictor": "toy", "weights_sha256": "ab" * 32}
    convention = conventions.get("dicom", settings, labels=LABELS)
    (case,) = convention.find_cases(folder, 1)
    (volume,) = convention.read_case(case)
    out.mkdir()
    path = convention.write_mask(case, label_map, volume.geometry, out)
    further = [out / name for name in convention.further_outputs(case)]
    assert sorted(out.iterdir()) == sorted([path, *further])
    return path, further, volume


def label_map_of(structures, name, geometry):
    """Rasterise a structure on the voxels of a volume."""
    numbers = {each.ROIName: each.ROINumber for each in structures.StructureSetROISequence}
    contours = next(
        each for each in structures.ROIContourSequence if each.ReferencedROINumber == numbers[name]
    )
    by_slice: dict[int, list] = {}
    to_index = np.linalg.inv(TO_LPS @ geometry.affine)
    for contour in contours.get("ContourSequence", []):
        places = np.array(contour.ContourData, float).reshape(-1, 3)
        index = (np.column_stack([places, np.ones(len(places))]) @ to_index.T)[:, :3]
        z = round(float(index[0, 2]))
        np.testing.assert_allclose(index[:, 2], z, atol=1e-3)
        by_slice.setdefault(z, []).append(index[:, :2])
    mask = np.zeros(geometry.shape_ZYX, bool)
    for z, polygons in by_slice.items():
        mask[z] = rasterised(polygons, geometry.shape_ZYX[1:])
    return mask


@pytest.mark.long
def test_contours_rasterised_again_are_the_mask(series, mask, tmp_path):
    _, (path, _), volume = written(series, mask, tmp_path / "out")
    structures = pydicom.dcmread(path)
    for name, value in LABELS.items():
        found, true = label_map_of(structures, name, volume.geometry), mask == value
        assert 2 * (found & true).sum() + 1 > 0.98 * (found.sum() + true.sum() + 1), name
        np.testing.assert_array_equal(found, true)


@pytest.mark.long
def test_contours_refer_to_the_images_they_lie_on(series, mask, tmp_path):
    _, (path, _), _ = written(series, mask, tmp_path / "out")
    structures = pydicom.dcmread(path)
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.iterdir())}
    first = next(iter(images.values()))
    assert structures.StudyInstanceUID == first.StudyInstanceUID
    (frame,) = structures.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == first.FrameOfReferenceUID
    (study,) = frame.RTReferencedStudySequence
    (referenced,) = study.RTReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    assert {each.ReferencedSOPInstanceUID for each in referenced.ContourImageSequence} == set(
        images
    )
    for structure in structures.ROIContourSequence:
        for contour in structure.get("ContourSequence", []):
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            place = np.array(contour.ContourData[:3], float)
            normal = np.cross(*np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float))
            assert abs(normal @ (place - np.array(image.ImagePositionPatient, float))) < 1e-3
            assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)


@pytest.mark.long
def test_a_label_that_is_absent_is_named_without_contours(series, mask, tmp_path):
    _, (path, _), _ = written(series, np.zeros_like(mask), tmp_path / "out")
    structures = pydicom.dcmread(path)
    assert [each.ROIName for each in structures.StructureSetROISequence] == list(LABELS)
    drawn = ["ContourSequence" in each for each in structures.ROIContourSequence]
    assert drawn == [False] * len(LABELS)


def test_nifti_lies_where_the_series_does(series, mask, tmp_path):
    _, (_, path), volume = written(series, mask, tmp_path / "out")
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, mask)
    np.testing.assert_allclose(image.affine, volume.geometry.affine, atol=1e-3)


def test_segments_and_structures_say_side_colour_and_what_made_them(series, mask, tmp_path):
    segmentation, (path, _), _ = written(series, mask, tmp_path / "out")
    structures = pydicom.dcmread(path)
    sides = {"left kidney": "Left", "adrenal_gland_right": "Right"}
    for segment in pydicom.dcmread(segmentation).SegmentSequence:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
        side = sides.get(segment.SegmentLabel)
        assert [each.CodeMeaning for each in modifiers] == ([side] if side else [])
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "flarekit toy"
        assert "abababababab" in algorithm.AlgorithmVersion
        assert f"weights_sha256={'ab' * 32}" in str(algorithm.AlgorithmParameters)
        shown = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        wanted = colour_of(LABELS[segment.SegmentLabel])
        assert np.abs(np.array(shown.to_rgb()) - wanted).max() <= 2
    colours = [tuple(each.ROIDisplayColor) for each in structures.ROIContourSequence]
    assert colours == [colour_of(value) for value in LABELS.values()]
    assert "ab" * 32 in structures.StructureSetDescription


def test_two_predictors_with_one_mask_have_objects_of_their_own(series, mask, tmp_path):
    one = written(series, mask, tmp_path / "one", also=())[0]
    other = conventions.get("dicom", {"predictor": "other"}, labels=LABELS)
    (case,) = other.find_cases(series, 1)
    (volume,) = other.read_case(case)
    path = other.write_mask(case, mask, volume.geometry, tmp_path)
    assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(path).SOPInstanceUID


@pytest.mark.skipif(find_spec("rt_utils") is None, reason="rt-utils is not installed (interop)")
@pytest.mark.filterwarnings("ignore")
def test_a_library_that_is_not_ours_opens_the_contours(tmp_path, mask):
    from rt_utils import RTStructBuilder

    folder = tmp_path / "axial"
    mask = np.pad(mask, ((0, 0), (0, 20), (0, 0)))  # it takes images and pixels for square
    write_series(folder, np.zeros((8, 80, 80), np.int16), PixelSpacing=[[1.5, 1.5]] * 8)
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(".dcm"))
    _, (path, _), _ = written(folder, mask, tmp_path / "out")
    opened = RTStructBuilder.create_from(str(folder), str(path))
    assert opened.get_roi_names() == list(LABELS)
    for name in ("left kidney", "adrenal_gland_right"):
        theirs = np.moveaxis(opened.get_roi_mask_by_name(name), 2, 0)
        ours = mask == LABELS[name]
        overlap = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
        assert overlap > 0.9, (name, overlap)  # it draws whole pixels, the outline's among them


@pytest.mark.skipif(
    find_spec("DicomRTTool") is None, reason="dicomrttool is not installed (interop)"
)
@pytest.mark.filterwarnings("ignore")
def test_a_library_that_is_not_ours_rasterises_contours_on_pixels_that_are_not_square(
    tmp_path, mask
):
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    folder = tmp_path / "study"
    write_series(folder, np.zeros((8, 60, 80), np.int16))
    _, (path, _), _ = written(folder, mask, tmp_path / "out")
    shutil.copy(path, folder / "contours.dcm")
    reader = DicomReaderWriter(description="any", arg_max=True, verbose=False)
    reader.walk_through_folders(str(folder))
    names = ["left kidney", "adrenal_gland_right"]
    reader.set_contour_names_and_associations(names)
    reader.set_index(0)
    reader.get_images_and_mask()
    for value, name in enumerate(names, 1):
        theirs, ours = reader.mask == value, mask == LABELS[name]
        overlap = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
        assert overlap > 0.9, (name, overlap)  # it draws whole pixels, the outline's among them


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
@pytest.mark.long
def test_a_program_that_is_not_ours_makes_the_mask_of_contours_again(tmp_path, mask):
    folder, made = tmp_path / "study", tmp_path / "made"
    write_series(folder, np.zeros((8, 60, 80), np.int16))
    _, (path, _), _ = written(folder, mask, tmp_path / "out")
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", folder]
    command += ["--output-prefix", made, "--prefix-format", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("left kidney", "adrenal_gland_right", "liver"):
        (file,) = made.glob(f"*{name.split()[-1]}*.nrrd")
        theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        np.testing.assert_array_equal(theirs > 0, mask == LABELS[name], err_msg=name)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("kind", [0, 1], ids=["segmentation", "contours"])
def test_a_program_that_knows_the_standard_finds_no_error_in_the_objects(tmp_path, mask, kind):
    write_series(tmp_path / "study", np.zeros((8, 60, 80), np.int16))
    segmentation, (contours, _), _ = written(tmp_path / "study", mask, tmp_path / "out")
    path = (segmentation, contours)[kind]
    said = subprocess.run(["dciodvfy", path], check=False, capture_output=True, text=True).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


@pytest.mark.long
def test_the_command_writes_what_is_asked_for_and_refuses_it_without_dicom(
    toy, tmp_path, write_scan
):
    write_series(tmp_path / "in", np.random.default_rng(0).integers(-900, 300, (8, 40, 40)))
    command = ["predict", "-p", toy.folder, "--device", "cpu", "--also", "rtstruct,nifti"]
    folders = ["-i", tmp_path / "in", "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, [*command, *folders])))
    assert result.exit_code == 0, result.output
    kinds = sorted("".join(path.suffixes[-2:]) for path in (tmp_path / "out").iterdir())
    assert kinds[1:] == [".nii.gz", ".rtstruct.dcm"] or len(kinds) == 3
    scan = write_scan(tmp_path / "scan.nii.gz")
    options = Options(device="cpu", precision="fp32", also=("rtstruct",))
    with pytest.raises(UsageError, match="is written for DICOM series"):
        segment_folder(toy, scan, tmp_path / "no", options)
