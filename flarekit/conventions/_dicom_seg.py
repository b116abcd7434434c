"""A label map as a DICOM segmentation object (PS3.3 A.51) that refers to the series it lies on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import flarekit

_Header: TypeAlias = Any  # pydicom's Dataset, whose elements carry no types
_Code: TypeAlias = Any  # pydicom's Code
_SERIES_NUMBER = 300
# a file may lack them once it was anonymised; a segmentation states them, if only as empty
_STATED = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
# words of a label -> SNOMED CT name as pydicom spells it
_ORGANS = {
    "adrenal": "AdrenalGland",
    "aorta": "Aorta",
    "bladder": "Bladder",
    "brain": "Brain",
    "cava": "InferiorVenaCava",
    "duodenum": "Duodenum",
    "esophagus": "Esophagus",
    "gallbladder": "Gallbladder",
    "heart": "Heart",
    "kidney": "Kidney",
    "kidneys": "Kidney",
    "liver": "Liver",
    "lung": "Lung",
    "lungs": "Lung",
    "pancreas": "Pancreas",
    "spleen": "Spleen",
    "stomach": "Stomach",
}
_LESIONS = {
    "lesion": "Lesion",
    "lesions": "Lesion",
    "metastasis": "NeoplasmMetastatic",
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
}


def segmentation_object(
    label_map_ZYX: NDArray[np.uint8], headers: Sequence[_Header], labels: Mapping[str, int]
) -> bytes:
    """Return the file of a segmentation with one segment per label, absent ones included.

    Its identifiers follow from what it holds, so the same mask of the same series has the same.

    Args:
        label_map_ZYX: uint8; slice z lies on the image of `headers[z]`.
        headers: of the images, without pixels.
        labels: label name -> value in the map.
    """
    import highdicom
    from pydicom.uid import generate_uid

    numbers = np.zeros(256, np.uint8)
    for number, value in enumerate(labels.values(), start=1):
        numbers[value] = number
    digest = hashlib.sha256(np.ascontiguousarray(label_map_ZYX).tobytes()).hexdigest()
    sources = [headers[0].SeriesInstanceUID, digest, str(dict(labels)), flarekit.__version__]
    for header in headers:
        for keyword in _STATED:
            if keyword not in header:
                setattr(header, keyword, "")
    with warnings.catch_warnings():
        # a name without a caret is the hospital's to write
        warnings.filterwarnings("ignore", message=".*unlikely to represent the intended person")
        segmentation = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=numbers[label_map_ZYX],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(labels),
            series_instance_uid=generate_uid(entropy_srcs=[*sources, "series"]),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=generate_uid(entropy_srcs=[*sources, "instance"]),
            instance_number=1,
            manufacturer="flarekit",
            manufacturer_model_name="flarekit",
            software_versions=flarekit.__version__,
            device_serial_number="0",
            omit_empty_frames=bool(label_map_ZYX.any()),
            content_label="SEGMENTATION",
            series_description="flarekit segmentation",
        )
    content = BytesIO()
    segmentation.save_as(content)
    return content.getvalue()


def _descriptions(labels: Mapping[str, int]) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="flarekit", family=codes.DCM.ArtificialIntelligence, version=flarekit.__version__
    )
    descriptions = []
    for number, label in enumerate(labels, start=1):
        category, kind = _codes(label)
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:64],
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        descriptions.append(description)
    return descriptions


def _codes(label: str) -> tuple[_Code, _Code]:
    """Return what a label is, in SNOMED CT: its category and its type; tissue where unknown."""
    from pydicom.sr.codedict import codes

    words = label.lower().replace("_", " ").replace("-", " ").split()
    for table, category in (
        (_LESIONS, codes.SCT.MorphologicallyAbnormalStructure),
        (_ORGANS, codes.SCT.AnatomicalStructure),
    ):
        for word in words:
            if word in table:
                return category, getattr(codes.SCT, table[word])
    return codes.SCT.Tissue, codes.SCT.Tissue
