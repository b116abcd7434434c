"""What the words of a slice mean: bits that are not its value, padding, tables, compression."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid

from flarekit import conventions
from flarekit.conventions import left_out_of
from flarekit.core.errors import InputError, UnreadableVolumeError
from tests.conventions.dicom.dicom_files import slice_of

VOXELS = np.random.default_rng(7).integers(-1000, 1000, (5, 8, 10)).astype(np.int16)


def write(folder, edit):
    uid = generate_uid()
    for k, pixels in enumerate(VOXELS):
        image = slice_of(pixels, (0, 0, 4.0 * k), uid, k + 1)
        edit(image, pixels)
        image.save_as(folder / f"IM{k:04d}.dcm", enforce_file_format=True)


def read(folder):
    (case,) = conventions.get("dicom").find_cases(folder, 1)
    (volume,) = conventions.get("dicom").read_case(case)
    return volume.voxels_ZYX, " ".join(volume.warnings)


def unsigned(image, pixels, bits=12):
    image.PixelRepresentation, image.BitsStored, image.HighBit = 0, bits, bits - 1
    image.RescaleIntercept = -1024
    return (pixels.astype(int) + 1024).astype(np.uint16)


@pytest.mark.parametrize("above", [0x8000, 0xF000, 0x1000])
def test_bits_above_the_stored_ones_are_no_part_of_a_value(tmp_path, above):
    def overlay(image, pixels):
        words = unsigned(image, pixels)
        words[::2] |= above
        image.PixelData = words.tobytes()

    write(tmp_path, overlay)
    voxels, said = read(tmp_path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert "BitsStored of 12" in said
    one = pydicom.dcmread(tmp_path / "IM0002.dcm")  # as pydicom has it
    np.testing.assert_array_equal(one.pixel_array.astype(int) - 1024, VOXELS[2])


def test_a_sign_that_ends_at_the_stored_bits_is_extended(tmp_path):
    def cut(image, pixels):
        image.PixelData = (pixels.view(np.uint16) & 0x0FFF).tobytes()
        image.BitsStored, image.HighBit = 12, 11

    write(tmp_path, cut)
    voxels, said = read(tmp_path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert "sign of its pixels" in said


@pytest.mark.parametrize("high_bit", [11, 15, 70])
def test_values_that_need_more_bits_than_stated_are_kept_where_signs_are_extended(
    tmp_path, high_bit
):
    """Padding of -3024, and metal, in a series that states 12 bits."""

    def beyond(image, pixels):
        pixels = pixels.copy()
        pixels[0, :2] = -3024, 3000
        image.PixelData = pixels.tobytes()
        image.BitsStored, image.HighBit = 12, high_bit

    write(tmp_path, beyond)
    voxels, said = read(tmp_path)
    assert voxels[0, 0, :2].tolist() == [-3024, 3000]
    np.testing.assert_array_equal(voxels[:, 1:], VOXELS[:, 1:])
    assert said == ""


def test_values_that_are_shifted_in_their_words_are_refused(tmp_path):
    def shift(image, pixels):
        image.PixelData = (unsigned(image, pixels) << 4).tobytes()
        image.HighBit = 15

    write(tmp_path, shift)
    with pytest.raises(UnreadableVolumeError, match=r"IM0000\.dcm.*HighBit 15, BitsStored 12"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("padding", "vr", "bits"), [(63536, "US", 16), (63536, "US", 12), (-2000, "SS", 16)]
)
def test_padding_that_would_be_metal_is_air(tmp_path, padding, vr, bits):
    def pad(image, pixels):
        words = unsigned(image, pixels, bits)
        words[:2] = 63536  # -2000 where it had a sign
        image.PixelData = words.tobytes()
        image.add_new("PixelPaddingValue", vr, padding)

    write(tmp_path, pad)
    voxels, said = read(tmp_path)
    assert (voxels[:, :2] == -1024).all()
    np.testing.assert_array_equal(voxels[:, 2:], VOXELS[:, 2:])
    assert "PixelPaddingValue lies at 62512 HU: -1024 is taken (5 files)" in said


def test_padding_is_told_in_hu_by_the_slope(tmp_path):
    def pad(image, pixels):
        words = unsigned(image, pixels, 16)
        words[:2] = 63536
        image.PixelData, image.RescaleSlope = words.tobytes(), 0.5
        image.add_new("PixelPaddingValue", "US", 63536)

    write(tmp_path, pad)
    _, said = read(tmp_path)
    assert "PixelPaddingValue lies at 30744 HU" in said


@pytest.mark.parametrize("padding", [-2000, 40, 1000])
def test_padding_among_the_values_of_a_body_or_below_air_is_left_as_it_is(tmp_path, padding):
    def pad(image, pixels):
        pixels = pixels.copy()
        pixels[:2] = padding
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "SS", padding)

    write(tmp_path, pad)
    voxels, _ = read(tmp_path)
    assert (voxels[:, :2] == padding).all()


def test_a_table_that_maps_values_is_not_passed_over(tmp_path):
    def table(image, _):
        item = pydicom.Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [4, 0, 16], "HU"
        item.LUTData = bytes(8)
        del image.RescaleSlope, image.RescaleIntercept
        image.ModalityLUTSequence = [item]

    write(tmp_path, table)
    with pytest.raises(InputError, match=r"no CT to segment") as refused:
        read(tmp_path)
    assert "IM0000.dcm" in refused.value.fix
    assert "ModalityLUTSequence" in refused.value.fix


def test_values_that_are_shown_inverted_are_the_same_values(tmp_path):
    write(tmp_path, lambda image, _: setattr(image, "PhotometricInterpretation", "MONOCHROME1"))
    voxels, said = read(tmp_path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert "MONOCHROME1" in said


@pytest.mark.parametrize("kind", ["RLE", "JPEG 2000", "unknown"])
def test_damaged_compression_is_named_with_what_the_decoder_said(tmp_path, kind):
    def damage(image, _):
        if kind == "RLE":
            image.compress(RLELossless)
            image.PixelData = image.PixelData[:60] + b"\xff" * 30 + image.PixelData[90:]
            return
        image.file_meta.TransferSyntaxUID = JPEG2000Lossless if kind != "unknown" else "1.2.3.4"
        image.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True

    write(tmp_path, damage)
    with pytest.raises(UnreadableVolumeError, match=r"IM000\d\.dcm.*[Uu]nable") as refused:
        read(tmp_path)
    assert "slice.dcm" not in refused.value.message  # a name that nobody knows
    assert left_out_of(conventions.get("dicom").find_cases(tmp_path, 1)) == ()


def test_a_tilted_gantry_is_told(tmp_path):
    def tilt(image, _):
        image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(0.3)), -float(np.sin(0.3))]

    write(tmp_path, tilt)
    voxels, said = read(tmp_path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert "not orthogonal" in said
