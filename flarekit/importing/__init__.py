"""Published and home-made checkpoints become predictor folders."""

from collections.abc import Mapping
from pathlib import Path

from flarekit.core.errors import InputError
from flarekit.importing.writing import ImportOptions

_WRAPPED_IN = ("net", "state_dict", "model_state_dict", "model")
__all__ = ["ImportOptions", "import_predictor"]


def import_predictor(source: Path, folder: Path, options: ImportOptions) -> None:
    """Make a predictor folder from a checkpoint, told apart by what it holds.

    Args:
        source: an nnU-Net v2 result folder (with `plans.json` and `fold_*`), or the file of a
            FLARE23 or FLARE21 state dict or of an MPU-Net checkpoint.
        folder: the predictor folder to make.
        options: name, convention, folds.

    Raises:
        InputError: nothing that is known.
        PredictorError: known, but something in it is not supported; the message says what.
        WeightsMismatchError: weights that do not fit what the plans or the keys say.
        UsageError: the folder is the source's, or a file of it would be replaced.
        OutputError: the folder could not be written.
    """
    if source.is_dir():
        from flarekit.importing.nnunet import import_result_folder

        import_result_folder(source, folder, options)
        return
    if not source.is_file():
        raise InputError(f"{source}: is not there", fix="name a result folder or a checkpoint file")
    from flarekit.importing.checkpoint import load_checkpoint, state_dict_of
    from flarekit.importing.flare23 import import_state_dict, looks_like_flare23
    from flarekit.importing.mpu_net import import_mpu_net, looks_like_mpu_net

    content = load_checkpoint(source)
    field = next((name for name in _WRAPPED_IN if isinstance(content.get(name), Mapping)), None)
    keys = [str(key) for key in (content if field is None else content[field])]
    if looks_like_flare23(keys):
        state_dict = state_dict_of(content, source, field=field)
        import_state_dict(state_dict, source, folder, options)
    elif looks_like_mpu_net(keys):
        state_dict = state_dict_of(content, source, field=field)
        import_mpu_net(state_dict, source, folder, options)
    elif "network_weights" in content:
        raise InputError(
            f"{source}: is one fold of an nnU-Net result",
            fix="name the folder above it, which holds plans.json and dataset.json",
        )
    else:
        first = ", ".join(map(str, list(content)[:3]))
        raise InputError(
            f"{source}: is not a checkpoint that is known (its first keys: {first})",
            fix="import an nnU-Net v2 result folder, a FLARE23 or FLARE21 state dict, or MPU-Net's",
        )
