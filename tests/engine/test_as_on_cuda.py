"""What the engine does on a GPU, on one without contents: devices, types, and who waits for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flarekit.engine import Restoration
from flarekit.engine.torch import TorchEngine
from flarekit.models import selective_scan as scans
from flarekit.models.selective_scan import _proof
from flarekit.segmentation.predictors import find_predictor, networks_of
from tests.engine.fake_cuda import fake_cuda

WEIGHTS = Path(__file__).parents[2] / "weights"
SHIPPED = sorted(
    str(path.parent.relative_to(WEIGHTS)) for path in WEIGHTS.glob("**/predictor.toml")
)
ALSO_IN_FP32 = ("mamba_ahnet_mr", "abdomen_ct/locator")  # the smallest; others are slow
SWEPT = [
    *((name, "fp16") for name in SHIPPED),
    *(
        pytest.param(name, "fp32", marks=() if name in ALSO_IN_FP32 else pytest.mark.slow)
        for name in SHIPPED
    ),
]


@pytest.fixture
def proved(monkeypatch):
    """Let our kernel be the scan that has proved itself on a GPU."""
    monkeypatch.setattr(_proof, "_faults", {})
    monkeypatch.setattr(_proof, "_tried", lambda name, _: None if name == "nvrtc" else "is absent")
    scans._first_that_works.cache_clear()
    yield
    scans._first_that_works.cache_clear()


def restoration_of(shape, spec):
    """Return what brings labels to a grid that is twice as fine."""
    weights = [np.eye(n, dtype=np.float32).repeat(2, axis=0) for n in shape]
    return Restoration(
        padding=((0, 0),) * 3,
        weights_Z=weights[0],
        weights_Y=weights[1],
        weights_X=weights[2],
        class_values=np.array(spec.class_values, np.uint8),
    )


@pytest.mark.long(2)
@pytest.mark.usefixtures("proved")
@pytest.mark.parametrize(("folder", "precision"), SWEPT)
def test_every_shipped_network_is_swept_without_leaving_the_device(monkeypatch, folder, precision):
    predictor = find_predictor(str(WEIGHTS / folder))
    spec, networks = predictor.spec.for_mode("fast"), networks_of(predictor).build()
    z, y, x = spec.grid.tile_ZYX
    image = np.zeros((len(spec.channels), max(z + 8, 20), y + 8, x), np.float32)
    made = partial(restoration_of, image.shape[1:], spec)
    with fake_cuda(monkeypatch) as cuda:
        compute = TorchEngine(
            networks,
            # from the centre every tile's labels are looked at before the next one is chosen
            spec.grid.model_copy(update={"order": "upwards"}),
            class_count=len(spec.class_values),
            device=cuda,
            precision=precision,
            memory_mib=4096.0,
            channels=len(spec.channels),
        )
        on_grid = [slab.classes() for slab in compute.sweep(image)]
        on_scan = [slab.labels(made) for slab in compute.sweep(image)]
        compute.release()
    assert np.concatenate(on_grid).shape == image.shape[1:]
    assert np.concatenate(on_scan).shape == tuple(2 * n for n in image.shape[1:])
