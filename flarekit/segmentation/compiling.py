"""Compile a predictor ahead of its first run, as an image build does."""

from importlib.util import find_spec
from pathlib import Path

from flarekit.core.spec import PredictorFolder
from flarekit.engine import Precision
from flarekit.segmentation.predictors import cache_folder, compiled_folder, networks_of

_MOST_MADE = ("nothing", "blob", "all")


def compile_predictor(
    predictor: PredictorFolder, precision: Precision = "auto", *, beside: bool = False
) -> tuple[Path, str]:
    """Compile it and its locator for this processor; what is there and whole is left as it is.

    Its smaller tiles, if it names any, are compiled as well. Of these no form is kept that other
    processors could read: there, without torch, they are left out.

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
    from flarekit.engine.openvino import choose_precision, compile_networks, is_compiled

    folder = compiled_folder(predictor) if beside else cache_folder()
    networks, grid = networks_of(predictor, keep=folder), predictor.spec.grid
    wanted = [(networks, grid, True)]
    if predictor.locator is not None:
        first = networks_of(predictor.locator, keep=folder, within=predictor)
        wanted.append((first, predictor.locator.spec.grid, True))
    if predictor.spec.locator is not None and predictor.spec.locator.small_tile_ZYX is not None:
        small = grid.model_copy(update={"tile_ZYX": predictor.spec.locator.small_tile_ZYX})
        exact = choose_precision(precision, networks.half_precisions)
        if find_spec("torch") is not None or is_compiled(networks, small, exact):
            wanted.append((networks, small, False))
    made = [
        compile_networks(networks, grid, precision, portable=portable)
        for networks, grid, portable in wanted
    ]
    return folder, max(made, key=_MOST_MADE.index)
