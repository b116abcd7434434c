"""flarekit: from a trained 3D segmentation network to a challenge submission.

>>> import flarekit
>>> with flarekit.load("abdomen_ct") as segmenter:
...     result = segmenter.segment("scan.nii.gz")
...     path = result.save("mask.nii.gz")
>>> sorted(result.label_names.values())[:3]
['aorta', 'duodenum', 'esophagus']

Names load when they are first used, so that `import flarekit` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flarekit.core.package import VERSION

if TYPE_CHECKING:
    from flarekit.core.errors import (
        BudgetError,
        DeviceError,
        FlarekitError,
        InputError,
        OutputError,
        PredictorError,
        UnreadableVolumeError,
        UsageError,
        WeightsHashError,
        WeightsMismatchError,
        WeightsMissingError,
    )
    from flarekit.core.records import CaseRecord, RunRecord
    from flarekit.core.spec import PredictorFolder, PredictorSpec
    from flarekit.segmentation.loading import load
    from flarekit.segmentation.opened import OpenScan
    from flarekit.segmentation.predict import predict
    from flarekit.segmentation.predictors import predictors
    from flarekit.segmentation.result import Result
    from flarekit.segmentation.saving import save_predictor
    from flarekit.segmentation.segmenter import Segmenter

__version__ = VERSION

__all__ = [
    "BudgetError",
    "CaseRecord",
    "DeviceError",
    "FlarekitError",
    "InputError",
    "OpenScan",
    "OutputError",
    "PredictorError",
    "PredictorFolder",
    "PredictorSpec",
    "Result",
    "RunRecord",
    "Segmenter",
    "UnreadableVolumeError",
    "UsageError",
    "WeightsHashError",
    "WeightsMismatchError",
    "WeightsMissingError",
    "load",
    "predict",
    "predictors",
    "save_predictor",
]

_AT = {
    "CaseRecord": "core.records",
    "OpenScan": "segmentation.opened",
    "PredictorFolder": "core.spec",
    "PredictorSpec": "core.spec",
    "Result": "segmentation.result",
    "RunRecord": "core.records",
    "Segmenter": "segmentation.segmenter",
    "load": "segmentation.loading",
    "predict": "segmentation.predict",
    "predictors": "segmentation.predictors",
    "save_predictor": "segmentation.saving",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_AT.get(name, 'core.errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
