"""Jobs of grand-challenge.org: whose weights a container runs with."""

import logging
from pathlib import Path

from flarekit.core.errors import PredictorError
from flarekit.core.spec import PredictorFolder, read_spec
from flarekit.segmentation.predictors import find_predictor

_LOG = logging.getLogger(__name__)
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".onnx")


def predictor_of_job(own: str, model_dir: Path, *, trust: bool = False) -> PredictorFolder:
    """Return the predictor of an uploaded model, or the image's own where none was uploaded.

    Args:
        own: the image's predictor, a name or folder.
        model_dir: where the platform unpacks the upload; a predictor folder, or one that holds
            exactly one. It may be missing or empty.
        trust: as of `find_predictor`, for whichever it is.

    Raises:
        PredictorError: there are weights but no `predictor.toml`, or several predictors.
        UsageError: nothing was uploaded and the image has no such predictor.
    """
    folders = [file.parent for file in _predictor_files(model_dir)]
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise PredictorError(
            f"{model_dir}: holds {len(folders)} predictors ({names})", fix="upload one"
        )
    if folders:
        _LOG.info("weights: %s", folders[0])
        return find_predictor(str(folders[0]), trust=trust)
    present = (
        [path for path in model_dir.rglob("*") if path.is_file()] if model_dir.is_dir() else []
    )
    weights = [path.name for path in present if path.suffix in _WEIGHTS]
    if weights:
        raise PredictorError(
            f"{model_dir}: holds {weights[0]} but no predictor.toml",
            fix="make the upload with flarekit weights pack PREDICTOR -o model.tar.gz",
        )
    if present:
        _LOG.warning("%s holds no predictor: the image's own is used", model_dir)
    return find_predictor(own, trust=trust)


def _predictor_files(model_dir: Path) -> list[Path]:
    if not model_dir.is_dir():
        return []
    own = model_dir / "predictor.toml"
    below = set(model_dir.glob("*/predictor.toml"))
    if not own.is_file():
        return sorted(below)
    locator = read_spec(model_dir).locator
    return sorted(
        {own, *(file for file in below if locator is None or file.parent != locator.folder)}
    )
