"""Compile a predictor ahead of its first run, as an image build does."""

from pathlib import Path

from flarekit.core.spec import PredictorFolder
from flarekit.engine import Precision
from flarekit.segmentation.predictors import cache_folder, compiled_folder, networks_of

_MOST_MADE = ("nothing", "blob", "all")


def compile_predictor(
    predictor: PredictorFolder, precision: Precision = "auto", *, beside: bool = False
) -> tuple[Path, str]:
    """Compile it and its locator for this processor; what is there and whole is left as it is.

    Args:
        predictor: from `find_predictor`.
        precision: of the arithmetic; `auto` is what this processor is fastest at.
        beside: keep it beside the weights, as an image wants it, not in the user's cache.

    Returns:
        The folder, and what had to be made: `nothing`, `blob` or `all`.

    Raises:
        PredictorError: weights missing or wrong, or torch is not there to convert them.
        DeviceError: this processor does not compute in that precision.
    """
    from flarekit.engine.openvino import compile_networks

    folder = compiled_folder(predictor) if beside else cache_folder()
    both = [networks_of(predictor, keep=folder)]
    grids = [predictor.spec.grid]
    if predictor.locator is not None:
        both.append(networks_of(predictor.locator, keep=folder, within=predictor))
        grids.append(predictor.locator.spec.grid)
    made = [
        compile_networks(networks, grid, precision)
        for networks, grid in zip(both, grids, strict=True)
    ]
    return folder, max(made, key=_MOST_MADE.index)
