"""A label map as a DICOM RT structure set (PS3.3 A.19): contours in patient coordinates."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom import TABLES
from flarekit.conventions.dicom.algorithm import Algorithm
from flarekit.conventions.dicom.outlines import outlines_of
from flarekit.conventions.dicom.seg import sources_of
from flarekit.conventions.dicom.series import Series
from flarekit.conventions.dicom.unchecked import unchecked
from flarekit.core.colours import colour_of
from flarekit.core.package import VERSION

_Dataset: TypeAlias = Any  # pydicom's, whose elements carry no types
_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # retired, and asked for all the same
_SERIES_NUMBER = 301
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def structure_set(
    label_map_ZYX: NDArray[np.uint8],
    series: Series,
    labels: Mapping[str, int],
    algorithm: Algorithm,
) -> bytes:
    """Return the file of a structure set with a structure per label, absent ones without contours.

    Contours run along the edges of voxels, in the plane of each slice of the series: rasterised,
    they give the mask again. Holes are cut out by channels without width.

    Args:
        label_map_ZYX: uint8; slice z lies on slice z of the series.
        series: whose voxels the mask has.
        labels: label name -> value in the map.
        algorithm: what made the mask.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    digest = hashlib.sha256(np.ascontiguousarray(label_map_ZYX).tobytes()).hexdigest()
    identity = [series.uid, digest, str(dict(labels)), algorithm.identity, "structures"]
    content = BytesIO()
    with unchecked():
        images = sources_of(series)
        whole = _header(images[0])
        whole.file_meta = FileMetaDataset()
        whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = UID(_RT_STRUCTURE_SET)
        instance = generate_uid(entropy_srcs=[*identity, "instance"])
        whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID = instance
        whole.SeriesInstanceUID = generate_uid(entropy_srcs=[*identity, "series"])
        whole.StructureSetDescription = algorithm.sentence[:1024]
        whole.ReferencedFrameOfReferenceSequence = [_frame(images)]
        structures, contours, observations = [], [], []
        for number, (name, value) in enumerate(labels.items(), start=1):
            structures.append(_structure(number, name, images[0], algorithm))
            contours.append(_contours(number, value, label_map_ZYX, series, images))
            observation = Dataset()
            observation.ObservationNumber = observation.ReferencedROINumber = number
            observation.ROIObservationLabel = name[:16]
            observation.RTROIInterpretedType = observation.ROIInterpreter = ""
            observations.append(observation)
        whole.StructureSetROISequence = structures
        whole.ROIContourSequence = contours
        whole.RTROIObservationsSequence = observations
        whole.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _header(image: _Dataset) -> _Dataset:
    """Return patient, study and equipment; the moment is now."""
    from pydicom.dataset import Dataset

    whole = Dataset()
    for element in image:
        if element.keyword in _TAKEN_OVER:
            whole.add(element)
    now = datetime.now()  # noqa: DTZ005 - DICOM's times are local
    whole.PositionReferenceIndicator = image.get("PositionReferenceIndicator", "")
    whole.SpecificCharacterSet = "ISO_IR 192"
    whole.Modality, whole.SeriesNumber, whole.InstanceNumber = "RTSTRUCT", _SERIES_NUMBER, 1
    whole.SeriesDescription = "flarekit contours"
    whole.Manufacturer = whole.ManufacturerModelName = "flarekit"
    whole.SoftwareVersions, whole.OperatorsName = VERSION, ""
    whole.StructureSetLabel, whole.ApprovalStatus = "FLAREKIT", "UNAPPROVED"
    whole.StructureSetDate, whole.StructureSetTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    return whole


_TAKEN_OVER = frozenset(TABLES["structure_set"]["elements"])


def _frame(images: Sequence[_Dataset]) -> _Dataset:
    """Return what the contours refer to: the images' frame, study, series and instances."""
    from pydicom.dataset import Dataset

    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(image: _Dataset) -> _Dataset:
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


def _structure(number: int, name: str, image: _Dataset, algorithm: Algorithm) -> _Dataset:
    from pydicom.dataset import Dataset

    structure = Dataset()
    structure.ROINumber, structure.ROIName = number, name[:64]
    structure.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
    structure.ROIGenerationAlgorithm = "AUTOMATIC"
    structure.ROIGenerationDescription = algorithm.name[:64]
    return structure


def _contours(
    number: int,
    value: int,
    label_map_ZYX: NDArray[np.uint8],
    series: Series,
    images: Sequence[_Dataset],
) -> _Dataset:
    """Return the contours of one label, slice by slice."""
    from pydicom.dataset import Dataset

    structure = Dataset()
    structure.ROIDisplayColor = list(colour_of(value))
    structure.ReferencedROINumber = number
    found = []
    for z, slice_YX in enumerate(label_map_ZYX):
        for polygon in outlines_of(slice_YX == value):
            places = _places_mm(polygon, z, series.affine)
            contour = Dataset()
            contour.ContourImageSequence = [_reference(images[z])]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(places)
            contour.ContourData = [f"{mm:.4f}" for mm in places.ravel()]
            found.append(contour)
    if found:
        structure.ContourSequence = found
    return structure


def _places_mm(
    polygon: NDArray[np.float64], z: int, affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the places of a slice's points, (N, 3), in mm, LPS."""
    index = np.column_stack([polygon, np.full(len(polygon), z), np.ones(len(polygon))])
    return index @ (_TO_LPS @ affine[:3]).T
