"""DICOM slices made from arrays, as scanners write them, for the tests beside this file."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
LABELS = {"liver": 1, "left kidney": 3, "lesion": 14, "whatsit": 20}
STUDY, FRAME = generate_uid(), generate_uid()
HALF_LIFE_S, DOSE_BQ, WEIGHT_KG = 6586.2, 3.0e8, 72.0


def slice_of(pixels, position, uid, number, modality="CT", **elements):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else PET_STORAGE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, uid
    image.FrameOfReferenceUID = FRAME
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "1", "A", "", ""
    image.StudyID, image.StudyDate, image.StudyTime = "1", "20240105", "080000"
    image.AccessionNumber, image.ReferringPhysicianName = "", ""
    image.Modality, image.SeriesNumber, image.InstanceNumber = modality, 1, number
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.ImagePositionPatient = [float(at) for at in position]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [1.5, 2.5], 4.0
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    image.PixelData = pixels.astype(np.int16).tobytes()
    return image


def write_series(folder, voxels, modality="CT", origin=(-10.0, 20.0, -300.0), gap=4.0, **elements):
    """Write slices in an order that their names do not tell."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    names = np.random.default_rng(0).permutation(len(voxels))
    for k, pixels in enumerate(voxels):
        position = np.array(origin) + [0, 0, gap * k]
        own = {
            key: value[k] if isinstance(value, list) else value for key, value in elements.items()
        }
        image = slice_of(pixels, position, uid, len(voxels) - k, modality, **own)
        image.save_as(folder / f"IM{names[k]:04d}", enforce_file_format=True)
    return uid


def tracer(**changes):
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = DOSE_BQ, HALF_LIFE_S
    item.RadiopharmaceuticalStartTime = "083000.5"
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return pydicom.Sequence([item])


def pet_elements(**changes):
    return {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": pydicom.multival.MultiValue(str, ["DECY", "ATTN", "SCAT"]),
        "PatientWeight": WEIGHT_KG,
        "RadiopharmaceuticalInformationSequence": tracer(),
        "SeriesDate": "20240105",
        "SeriesTime": "093000.5",
        "AcquisitionDate": "20240105",
        "AcquisitionTime": "093000.5",
        **changes,
    }


def suv_per_bqml(seconds=3600.0):
    return WEIGHT_KG * 1000 / (DOSE_BQ * 2 ** (-seconds / HALF_LIFE_S))


def ct_voxels(slices=6):
    return np.random.default_rng(1).integers(-1000, 1000, (slices, 8, 10)).astype(np.int16)


def put_raw(path, keyword, content, vr=None):
    """Put bytes into an element of an explicit little-endian file, as no library would."""
    tag = pydicom.tag.Tag(keyword)
    vr = vr or pydicom.datadict.dictionary_VR(tag)
    content += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(content) % 2)
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode()
    if vr in ("OB", "OW", "UN", "SQ", "UT"):
        head += b"\0\0" + len(content).to_bytes(4, "little")
    else:
        head += len(content).to_bytes(2, "little")
    start, end = place_of(path, tag)
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + head + content + whole[end:])


def place_of(path, tag):
    """Return where an element begins and ends in a file; where it would stand if it is absent."""
    whole = path.read_bytes()
    at = 132
    while at < len(whole):
        group, element, vr, length = struct.unpack("<HH2sH", whole[at : at + 8])
        start, at = at, at + 8
        if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            at += 4
            length = struct.unpack("<L", whole[at - 4 : at])[0]
        at += length
        if (group << 16 | element) >= tag:
            return start, at if (group << 16 | element) == tag else start
    return len(whole), len(whole)
