"""Training through nnU-Net v2 (extra `train`): its fingerprint, plans, augmentation and loop.

Our networks stand in the plans under their import path (`networks`); trainer classes with each
paper's loss, optimiser and schedule are found through `nnUNet_extTrainer` (`trainers`). What
`nnUNetv2_train` needs is set up by `environment`, so both ways of calling it work:

    flarekit train plan DATASET WORK --architecture att_umamba
    flarekit train run WORK --architecture att_umamba --fold 0

    export nnUNet_raw=WORK/raw nnUNet_preprocessed=WORK/preprocessed nnUNet_results=WORK/results
    export nnUNet_extTrainer=.../flarekit/training/nnunet/trainers
    nnUNetv2_train DATASET 3d_fullres 0 -tr FlarekitAttUMamba -p flarekit_att_umamba
"""

import os
from pathlib import Path

from flarekit.core.errors import UsageError
from flarekit.core.extras import require
from flarekit.core.registry import near_miss

TRAINERS = {
    "nnunet": "FlarekitNnunet",
    "umamba": "FlarekitUMamba",
    "att_umamba": "FlarekitAttUMamba",
    "mamba_clinix": "FlarekitMambaClinix",
    "mpu_net": "FlarekitMPUNet",
    "attention_unet": "FlarekitAttentionUNet",
    "mamba_ahnet": "FlarekitMambaAHNet",
    "segresnet": "FlarekitSegResNet",
    "unetr": "FlarekitUNETR",
    "swin_unetr": "FlarekitSwinUNETR",
}


def check_architecture(name: str) -> None:
    """Raise UsageError unless there is a trainer for an architecture, and nnU-Net to run it."""
    if name not in TRAINERS:
        hint = near_miss(name, TRAINERS)
        raise UsageError(f"no trainer for architecture {name!r}", fix=hint)
    require("nnunetv2", "train", "nnU-Net is not installed")


def plans_name(architecture: str) -> str:
    """Return the name of an architecture's plans."""
    return f"flarekit_{architecture}"


def environment(work_dir: Path) -> None:
    """Point nnU-Net to its folders in a work folder, and to our trainers."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work_dir.resolve() / name)
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent / "trainers")  # noqa: SIM112
