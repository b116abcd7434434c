"""DICOM series in, one DICOM segmentation object each out."""
