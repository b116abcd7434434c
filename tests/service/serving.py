"""A service on a free port, asked over loopback, with a segmenter that computes nothing."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import uvicorn.server

from flarekit.core.volume import Geometry
from flarekit.engine import EngineFacts
from flarekit.report.statistics import label_volumes
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.result import Result
from flarekit.service.app import create_app
from flarekit.service.server import config_of
from flarekit.service.service import Service
from flarekit.service.settings import Settings

TILES = 4
TRUSTED = httpx.create_ssl_context()  # which takes longer to make than most tests


@dataclass
class FakeSegmenter:
    """Calls what is brighter than 100 the first label, in four tiles that wait for a gate."""

    name: str
    gate: threading.Event
    calls: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.spec = find_predictor(self.name).spec
        self.facts = EngineFacts(engine="fake", device="cpu", device_name="none", precision="fp32")

    def segment(self, scan: Any, *, progress: Any, **_: object) -> Result:
        self.calls.append(self.name)
        volumes = scan.read()
        for tile in range(1, TILES + 1):
            progress(tile, TILES)
            while not self.gate.wait(0.01):
                progress(tile, TILES)
        return self.result(volumes, [])

    def open(self, scan: Any, *, progress: Any, **_: object) -> FakeOpenScan:
        return FakeOpenScan(self, scan.read(), self.segment(scan, progress=progress))

    def result(self, volumes: Any, added: list[Any]) -> Result:
        voxels = volumes[0].voxels_ZYX
        labels = (voxels > 100).astype(np.uint8)
        for x, y, z in added:
            labels[z, y, x] = 1
        geometry: Geometry = volumes[0].geometry
        return Result(
            labels=labels.T,
            label_names={value: name for name, value in self.spec.labels.items()},
            volumes_ml=label_volumes(labels, self.spec.labels, 0.001),
            probabilities=None,
            seconds=0.1,
            stage_seconds={"read": 0.1},
            traded=(),
            warnings=(),
            axes="xyz",
            affine=geometry.affine,
            _geometry=geometry,
            _statistics=tuple,
        )

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeOpenScan:
    """Adds the clicked voxels."""

    segmenter: FakeSegmenter
    volumes: Any
    result: Result

    def refine(self, clicks: Any) -> Result:
        return self.segmenter.result(self.volumes, clicks["tumor"])

    def close(self) -> None:
        self.volumes = None


@dataclass
class Running:
    """A service that runs, and who asks it."""

    service: Service
    client: httpx.Client
    gate: threading.Event
    loaded: list[FakeSegmenter]
    url: str

    def upload(self, *files: Any, **fields: str) -> dict[str, Any]:
        """Upload files, (field, name, bytes) each, and return the case."""
        answer = self.post(*files, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def post(self, *files: Any, **fields: str) -> httpx.Response:
        parts = [(name, (called, content)) for name, called, content in files]
        return self.client.post("/v1/cases", files=parts, data=fields)

    def patiently(self, *files: Any, **fields: str) -> httpx.Response:
        """Upload where senders may hardly pause, as often as this machine made a pause."""
        for _ in range(100):
            answer = self.post(*files, **fields)
            if answer.status_code != 408:
                break
        return answer

    def finished(self, case_id: str) -> dict[str, Any]:
        """Wait until a case is over and return it."""
        return self.until(case_id, lambda case: case["state"] not in ("waiting", "running"))

    def until(self, case_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(12_000):
            case = self.client.get(f"/v1/cases/{case_id}").json()
            if holds(case):
                return case
            time.sleep(0.01)
        raise AssertionError(case)


class Impatient:
    """asyncio for a server that looks 200 times a second, not ten times, whether it is to end."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


uvicorn.server.asyncio = Impatient()


@contextmanager
def serving(
    settings: Settings, page: Path | None = None, *, fake: bool = True
) -> Iterator[Running]:
    """Serve, with fake segmenters or real ones, until the block is left."""
    gate, loaded = threading.Event(), []
    gate.set()

    def load(predictor: str, _mode: str, _device: str) -> FakeSegmenter:
        loaded.append(FakeSegmenter(predictor, gate))
        return loaded[-1]

    service = Service(settings, load if fake else None)
    app = create_app(service) if page is None else create_app(service, page)
    server = uvicorn.Server(config_of(app, settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=300, verify=TRUSTED) as client:
        try:
            yield Running(service, client, gate, loaded, url)
        finally:
            gate.set()
            server.should_exit = True
            thread.join(timeout=120)
    assert not thread.is_alive()


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Return settings for a test."""
    usual = {"predictors": ("abdomen_ct", "att_umamba_petct"), "port": 0, "device": "cpu"}
    return Settings(data=folder / "data", **usual | changes)


def nifti_of(bright: int = 1, shape: tuple[int, int, int] = (6, 5, 4)) -> bytes:
    voxels = np.zeros(shape, np.int16)
    voxels.ravel()[:bright] = 200
    return nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes()


def labels_in(content: bytes) -> np.ndarray:
    """Return the voxels of a compressed NIfTI file's bytes."""
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
