"""DICOM series in, one DICOM segmentation object each out."""

import tomllib
from pathlib import Path
from typing import Any

TABLES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("tables.toml").read_text("utf-8")
)
