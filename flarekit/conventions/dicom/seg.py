"""A label map as a DICOM segmentation object (PS3.3 A.51) that refers to the series it lies on."""

import hashlib
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom import TABLES
from flarekit.conventions.dicom.algorithm import Algorithm
from flarekit.conventions.dicom.elements import Elements
from flarekit.conventions.dicom.groups import derived_uid
from flarekit.conventions.dicom.series import Series
from flarekit.conventions.dicom.slices import CLASS_OF_MODALITY
from flarekit.conventions.dicom.unchecked import unchecked
from flarekit.conventions.dicom.values import day_in, time_in
from flarekit.core.colours import colour_of
from flarekit.core.package import VERSION

_Dataset: TypeAlias = Any  # pydicom's, whose elements carry no types
_Code: TypeAlias = Any  # pydicom's Code
_SERIES_NUMBER = 300
_LONGEST_UID = 64
_TEXTS = {  # element -> how long it may be
    "AccessionNumber": 16,
    "PatientID": 64,
    "PatientName": 192,
    "ReferringPhysicianName": 192,
    "StudyDescription": 64,
    "StudyID": 16,
}
_AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
_DATE = re.compile(r"\d{8}", re.ASCII)
_ORGANS: dict[str, str] = TABLES["organs"]
_LEFT, _RIGHT = {"left", "l"}, {"right", "r"}
_LESIONS: dict[str, str] = TABLES["lesions"]


def segmentation_object(
    label_map_ZYX: NDArray[np.uint8],
    series: Series,
    labels: Mapping[str, int],
    algorithm: Algorithm,
) -> bytes:
    """Return the file of a segmentation with one segment per label, absent ones included.

    Its identifiers follow from what it holds, so the same mask of the same series has the same.
    Of the images' own elements only those that are valid are taken over.

    Args:
        label_map_ZYX: uint8; slice z lies on slice z of the series.
        series: whose voxels the mask has.
        labels: label name -> value in the map.
        algorithm: what made the mask.
    """
    import highdicom
    from pydicom.uid import generate_uid

    numbers = np.zeros(256, np.uint8)
    for number, value in enumerate(labels.values(), start=1):
        numbers[value] = number
    digest = hashlib.sha256(np.ascontiguousarray(label_map_ZYX).tobytes()).hexdigest()
    sources = [series.uid, digest, str(dict(labels)), algorithm.identity]
    content = BytesIO()
    with unchecked():  # identifiers and names are written as the images have them
        segmentation = highdicom.seg.Segmentation(
            source_images=sources_of(series),
            pixel_array=numbers[label_map_ZYX],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(labels, algorithm),
            series_instance_uid=generate_uid(entropy_srcs=[*sources, "series"]),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=generate_uid(entropy_srcs=[*sources, "instance"]),
            instance_number=1,
            manufacturer="flarekit",
            manufacturer_model_name="flarekit",
            software_versions=VERSION,
            device_serial_number="0",
            omit_empty_frames=bool(label_map_ZYX.any()),
            content_label="SEGMENTATION",
            series_description="flarekit segmentation",
            specific_character_set="ISO_IR 192",
        )
        segmentation.save_as(content)
    return content.getvalue()


def sources_of(series: Series) -> list[_Dataset]:
    """Return the images as objects refer to them: nothing in them can be malformed."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    ordered = series.slices
    patient = _patient(ordered[0].elements)
    axes = np.diag([-1.0, -1.0, 1.0]) @ series.affine[:3, :3]  # LPS
    spacing_mm = np.linalg.norm(axes, axis=0)
    directions = (axes / spacing_mm)[:, :2].T.ravel()
    images = []
    for number, each in enumerate(ordered):
        image = Dataset()
        image.update(patient)
        image.SOPClassUID = UID(CLASS_OF_MODALITY[series.modality])
        image.SOPInstanceUID = UID(_identifier(each.uid, str(each.path)))
        image.StudyInstanceUID = UID(_identifier(series.study, f"study of {series.uid}"))
        image.SeriesInstanceUID = UID(_identifier(series.uid, series.name))
        image.FrameOfReferenceUID = UID(_identifier(series.frame, f"frame of {series.uid}"))
        image.Modality = series.modality
        image.InstanceNumber = number + 1
        image.Rows, image.Columns = each.shape_YX
        image.PixelSpacing = [_decimal(spacing_mm[1]), _decimal(spacing_mm[0])]
        image.SliceThickness = _decimal(spacing_mm[2])
        image.ImageOrientationPatient = [_decimal(cosine) for cosine in directions]
        image.ImagePositionPatient = [_decimal(mm) for mm in each.position_mm]
        images.append(image)
    return images


def _identifier(stated: str, source: str) -> str:
    """Return an identifier as the images state it, so that viewers find them by it.

    Where it cannot be written, or there is none, one that follows from the source.
    """
    usable = stated and stated.isascii() and stated.isprintable() and len(stated) <= _LONGEST_UID
    return stated if usable else derived_uid(source, stated)


def _decimal(value: float) -> str:
    """Return a number in at most 16 characters (VR DS)."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))


def _patient(elements: Elements) -> _Dataset:
    """Return whom the images are of; what is missing or malformed is empty."""
    from pydicom.dataset import Dataset

    patient = Dataset()
    for keyword, longest in _TEXTS.items():
        text = elements.text(keyword)
        usable = text.isprintable() and len(text) <= longest
        setattr(patient, keyword, text if usable else "")
    for keyword in ("PatientBirthDate", "StudyDate"):
        day = day_in(elements.text(keyword)) if _DATE.fullmatch(elements.text(keyword)) else None
        setattr(patient, keyword, "" if day is None else f"{day:%Y%m%d}")
    time = elements.text("StudyTime")
    patient.StudyTime = time if time_in(time) is not None and ":" not in time else ""
    sex, age = elements.text("PatientSex"), elements.text("PatientAge")
    patient.PatientSex = sex if sex in ("F", "M", "O") else ""
    if _AGE.fullmatch(age):
        patient.PatientAge = age
    return patient


def _descriptions(labels: Mapping[str, int], algorithm: Algorithm) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    identification = highdicom.AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version[:64],
        source="flarekit",
        parameters=algorithm.parameters,
    )
    descriptions = []
    for number, (label, value) in enumerate(labels.items(), start=1):
        category, kind = _codes(label)
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:64],
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identification,
            display_color=highdicom.color.CIELabColor.from_rgb(*colour_of(value)),
        )
        side = _side(label)
        if side is not None:
            modifiers = [highdicom.sr.CodedConcept.from_code(side)]
            kinds = description.SegmentedPropertyTypeCodeSequence
            kinds[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
        descriptions.append(description)
    return descriptions


def _words(label: str) -> list[str]:
    return label.lower().replace("_", " ").replace("-", " ").split()


def _side(label: str) -> _Code | None:
    """Return on which side of the body something is, where its name says so of one."""
    from pydicom.sr.codedict import codes

    words = set(_words(label))
    sides = [
        code
        for names, code in ((_LEFT, codes.SCT.Left), (_RIGHT, codes.SCT.Right))
        if names & words
    ]
    return sides[0] if len(sides) == 1 else None


def _codes(label: str) -> tuple[_Code, _Code]:
    """Return what a label is, in SNOMED CT: its category and its type; tissue where unknown."""
    from pydicom.sr.codedict import codes

    words = _words(label)
    for table, category in (
        (_LESIONS, codes.SCT.MorphologicallyAbnormalStructure),
        (_ORGANS, codes.SCT.AnatomicalStructure),
    ):
        for word in words:
            if word in table:
                return category, getattr(codes.SCT, table[word])
    return codes.SCT.Tissue, codes.SCT.Tissue
