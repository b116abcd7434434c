"""Mutations of a CT series of eight slices, `IM0000.dcm` to `IM0007.dcm`."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
from pydicom.config import disable_value_validation

from tests.conventions.dicom.dicom_files import place_of, put_raw, slice_of
from tests.sweep.mutations import Table, garbage, words

DICOM = Table()
COUNT = 8
_NOT_NEEDED = [
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "AccessionNumber",
    "Manufacturer",
    "ReferringPhysicianName",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "SliceThickness",
    "KVP",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "SliceLocation",
    "HighBit",
    "WindowCenter",
    "WindowWidth",
]
_NEEDED = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
}
_WHOLE = ("Rows", "Columns", "BitsAllocated", "PixelRepresentation")


def write_dicom(folder):
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(5).integers(-1000, 1000, (COUNT, 12, 14))
    with disable_value_validation():
        for k in range(COUNT):
            image = slice_of(
                voxels[k],
                (0, 0, 4 * k),
                "1.2.3.4",
                k + 1,
                SOPInstanceUID=f"1.2.3.4.{k}",
                StudyInstanceUID="1.2.3",
                FrameOfReferenceUID="1.2.9",
                AcquisitionNumber=1,
                SeriesDate="20240105",
                SeriesTime="0800",
                SeriesDescription="phantom",
            )
            image.save_as(folder / f"IM{k:04d}.dcm", enforce_file_format=True)


def paths(folder):
    return sorted(folder.glob("IM*"))


def some(random, folder):
    """Return one file, some or all."""
    everything = paths(folder)
    return random.sample(everything, random.choice([1, 2, len(everything)]))


def delete(path, keyword):
    start, end = place_of(path, pydicom.tag.Tag(keyword))
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + whole[end:])


def number(random, value):
    """Return a number as one of many scanners would write it."""
    ways = ["{:g}", "{:.6f}", "{:+.3f}", "{:.4E}", " {:g} ", "{:g} \0"]
    text = random.choice(ways).format(value)
    return text.replace(".", ",") if random.random() < 0.3 else text


@DICOM.same("elements that a mask does not need hold any bytes")
def _(random, folder):
    for keyword in random.sample(_NOT_NEEDED, 3):
        content = random.choice([garbage(random, 60), words(random).encode()])
        for path in some(random, folder):
            put_raw(path, keyword, content)


@DICOM.same("elements that a mask does not need are absent or empty")
def _(random, folder):
    for keyword in random.sample(_NOT_NEEDED, 5):
        empty = random.random() < 0.5
        for path in some(random, folder):
            put_raw(path, keyword, b"") if empty else delete(path, keyword)


@DICOM.same("elements that a mask does not need have another VR")
def _(random, folder):
    for keyword in random.sample(_NOT_NEEDED, 3):
        vr = random.choice(["OB", "UN", "US", "FD", "LO", "SH", "UI", "IS", "DS", "DA", "UT", "SQ"])
        content = garbage(random, 30)
        for path in some(random, folder):
            put_raw(path, keyword, content, vr)


@DICOM.same("dates, times and ages are malformed")
def _(random, folder):
    odd = ["1981/03/02", "8c6f2f0e-90f1", "00000000", "20241332", "noon", "25:61", "Y", "-1", "99"]
    for keyword in ("PatientBirthDate", "StudyDate", "SeriesTime", "StudyTime", "PatientAge"):
        for path in some(random, folder):
            put_raw(path, keyword, random.choice(odd).encode())


@DICOM.same("needed numbers are written in other ways")
def _(random, folder):
    for path in some(random, folder):
        image = pydicom.dcmread(path)
        for keyword in _NEEDED:
            texts = [number(random, float(value)) for value in image[keyword].value]
            put_raw(path, keyword, "\\".join(texts).encode())
        put_raw(path, "RescaleSlope", number(random, 1.0).encode())


@DICOM.same("needed numbers have another VR")
def _(random, folder):
    for path in some(random, folder):
        image = pydicom.dcmread(path)
        for keyword in _NEEDED:
            values = [float(value) for value in image[keyword].value]
            put_raw(path, keyword, np.array(values).tobytes(), "FD")
        for keyword in random.sample(_WHOLE, 2):
            value = int(image[keyword].value)
            content, vr = random.choice(
                [(str(value).encode(), "IS"), (struct.pack("<L", value), "UL"),
                 (struct.pack("<h", value), "SS"), (f"{value}.0".encode(), "DS")]
            )  # fmt: skip
            put_raw(path, keyword, content, vr)


@DICOM.same("identifiers are any text")
def _(random, folder):
    keyword = random.choice(["SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"])
    text = random.choice(["../../x", "/etc/x", "..", "a b", "ANON", "1.2.", "-f", words(random)])
    text = text if text.strip(" \t\0\\") else "x"
    for path in paths(folder):
        put_raw(path, "SpecificCharacterSet", b"ISO_IR 192")
        put_raw(path, keyword, text.replace("\\", "/").encode())


@DICOM.same("private elements and sequences hold anything, however deep")
def _(random, folder):
    for path in some(random, folder):
        whole = path.read_bytes()
        start, _ = place_of(path, pydicom.tag.Tag("PatientName"))
        deep = random.choice([1, 5, 2000])
        open_ = b"\x09\x00\x10\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        close = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        value = garbage(random, 50)
        inner = b"\x09\x00\x12\x11OB\0\0" + struct.pack("<L", len(value)) + value
        path.write_bytes(whole[:start] + open_ * deep + inner + close * deep + whole[start:])


@DICOM.same("files lack the preamble, the mark, or group 2")
def _(random, folder):
    for path in some(random, folder):
        whole = path.read_bytes()
        start, _ = place_of(path, pydicom.tag.Tag("ImageType"))
        kept = random.choice([whole[132:], whole[start:], whole[:128] + b"XXXX" + whole[132:]])
        path.write_bytes(kept)


@DICOM.same("files have another transfer syntax")
def _(random, folder):
    from pydicom import uid

    for path in some(random, folder):
        image = pydicom.dcmread(path)
        syntax = random.choice(
            [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
             uid.DeflatedExplicitVRLittleEndian]
        )  # fmt: skip
        if syntax == uid.RLELossless:
            image.compress(syntax)
        elif syntax == uid.ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
        image.file_meta.TransferSyntaxUID = syntax
        content = io.BytesIO()
        pydicom.dcmwrite(content, image, enforce_file_format=True)
        path.write_bytes(content.getvalue())


@DICOM.same("files have other names, in other folders")
def _(random, folder):
    for path in paths(folder):
        place = folder / random.choice(["", "a", "a/b", "ä ö", "x.dcm"])
        place.mkdir(parents=True, exist_ok=True)
        path.rename(
            place / f"{random.randrange(10**9)}{random.choice(['', '.IMA', '.dcm', '.txt'])}"
        )


@DICOM.same("directions and positions are off by rounding")
def _(random, folder):
    for path in paths(folder):
        image = pydicom.dcmread(path)
        image.ImageOrientationPatient = [
            round(float(value) + random.uniform(-3e-5, 3e-5), 8)
            for value in image.ImageOrientationPatient
        ]
        image.ImagePositionPatient = [
            round(float(value) + random.uniform(-4e-3, 4e-3), 6)
            for value in image.ImagePositionPatient
        ]
        image.save_as(path)


@DICOM.same("other files lie beside them")
def _(random, folder):
    for _ in range(random.randint(1, 4)):
        name = f"{random.randrange(10**6)}{random.choice(['', '.txt', '.json', '.bin'])}"
        (folder / name).write_bytes(garbage(random, 2000))
    report = pydicom.dcmread(paths(folder)[0])
    report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report.dcm")


@DICOM.refused("a file that is named an archive is none")
def _(random, folder):
    path = folder / f"{random.randrange(10**6)}{random.choice(['.zip', '.tar', '.tgz'])}"
    path.write_bytes(garbage(random, 2000))
    return [path.name]


@DICOM.same("slices are there twice")
def _(random, folder):
    again = folder / "again"
    again.mkdir()
    for path in some(random, folder):
        (again / path.name).write_bytes(path.read_bytes())


@DICOM.refused("a needed element is absent")
def _(random, folder):
    keyword = random.choice([*_NEEDED, *_WHOLE])
    path = random.choice(paths(folder))
    delete(path, keyword)
    return [path.name, keyword]


@DICOM.refused("a needed element is empty")
def _(random, folder):
    keyword = random.choice([*_NEEDED, *_WHOLE])
    path = random.choice(paths(folder))
    put_raw(path, keyword, b"")
    return [path.name, keyword]


@DICOM.refused("a needed element is not a number")
def _(random, folder):
    keyword = random.choice([*_NEEDED, "RescaleSlope", "RescaleIntercept"])
    path = random.choice(paths(folder))
    odd = ["nan", "inf", "1e999", "1,000,5", "0x10", "1.5 mm", "--1", "1_0", "one", "1.2.3"]
    parts = [random.choice(odd) for _ in range(_NEEDED.get(keyword, 1))]
    put_raw(path, keyword, "\\".join(parts).encode())
    return [path.name, keyword]


@DICOM.refused("a needed element has another number of values")
def _(random, folder):
    keyword = random.choice(list(_NEEDED))
    path = random.choice(paths(folder))
    counts = [count for count in range(1, 9) if count != _NEEDED[keyword]]
    put_raw(path, keyword, b"\\".join([b"1"] * random.choice(counts)))
    return [path.name, keyword]


@DICOM.refused("sizes and spacings cannot be")
def _(random, folder):
    path = random.choice(paths(folder))
    keyword, content = random.choice(
        [
            ("Rows", struct.pack("<H", random.choice([0, 1, 11, 13, 65535]))),
            ("Columns", struct.pack("<H", random.choice([0, 1, 13, 15, 65535]))),
            ("BitsAllocated", struct.pack("<H", random.choice([0, 1, 8, 12, 32, 64]))),
            ("PixelRepresentation", struct.pack("<H", random.randint(2, 65535))),
            ("PixelSpacing", random.choice([b"0\\1", b"-1\\1", b"1\\0"])),
            ("ImageOrientationPatient", random.choice([b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0"])),
        ]
    )
    put_raw(path, keyword, content)
    return [path.name, keyword]


@DICOM.refused("a file is cut off")
def _(random, folder):
    path = random.choice(paths(folder))
    whole = path.read_bytes()
    path.write_bytes(whole[: random.randrange(len(whole))])
    return [path.name]


@DICOM.refused("geometry changes within the series")
def _(random, folder):
    files = paths(folder)
    at = random.randrange(2, COUNT - 1)
    kind = random.choice(["spacing", "sideways", "gap", "twice"])
    for k, path in enumerate(files[at:], start=at):
        if kind == "spacing":
            put_raw(path, "PixelSpacing", b"0.7\\0.7")
        else:
            place = {"sideways": (30, 0, 4 * k), "gap": (0, 0, 4 * k + 9), "twice": (0, 0, 4)}[kind]
            put_raw(path, "ImagePositionPatient", "\\".join(map(str, place)).encode())
    said = {"spacing": "PixelSpacing", "sideways": "sideways", "gap": "gaps", "twice": "position"}
    return ["IM0000.dcm", said[kind]]


@DICOM.refused("the pixels of a slice are missing or too many")
def _(random, folder):
    path = random.choice(paths(folder))
    start, _ = place_of(path, pydicom.tag.Tag("PixelData"))
    head = b"\xe0\x7f\x10\x00OW\0\0"
    count = random.choice([0, 2, 100, 12 * 14 * 2 + 100])
    path.write_bytes(path.read_bytes()[:start] + head + struct.pack("<L", count) + bytes(count))
    return [path.name, "PixelData"]
