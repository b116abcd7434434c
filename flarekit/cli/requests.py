"""What the commands of `flarekit` itself take: predict, job and evaluate.

Each field is an option, under the name that the request it goes into has for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flarekit.cli.options import Devices, Precision, Sandbox


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How scans are segmented; see `flarekit.segmentation.folder.Options`."""

    convention: str | None = None
    also: Any = ""
    mode: Literal["fast", "exact"] = "fast"
    engine: str = "auto"
    device: Devices = "auto"
    precision: Precision = "auto"
    mirroring: bool = True
    locator: bool = True
    labels: Any = None
    deterministic: bool = False
    probabilities: Path | None = None
    on_error: Literal["mask", "skip", "stop"] = "mask"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a run leaves in writing, and how it goes on from what earlier ones left."""

    report: Path | None = None
    pictures: bool = True
    resume: bool = False
    retry_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class ShardRecording(Recording):
    """The same of a run that may be one of several shares of a cohort."""

    shard: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobFolders:
    """Where the platform puts things."""

    inputs: Path = Path("/input")
    outputs: Path = Path("/output")
    model: Path = Path("/opt/ml/model")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored, by whose rules, and where the scores go."""

    predicted: Path
    truth: Path
    convention: str | None = None
    edition: str | None = None
    labels: str | None = None
    probabilities: Path | None = None
    predictor: str | None = None
    ignore: str | None = None
    tolerances: list[str] | None = None
    json: Path | None = None
    csv: Path | None = None
    workers: int | None = None
    pictures: Path | None = None
    scans: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Interactive:
    """What is marked step by step, as autoPET's organisers do, and where the figures go."""

    played: str
    truth: Path
    scans: Path | None = None
    edition: Literal["4", "5"] = "5"
    seed: int = 0
    forget: bool = False
    time_s: float | None = None
    json: Path | None = None
    picture: Path | None = None
    backend: Sandbox = "auto"
    device: str = "auto"
    gpus: str | None = None
