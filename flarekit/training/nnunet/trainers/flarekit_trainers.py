"""Trainer classes for nnU-Net v2: each paper's loss, optimiser and schedule in nnU-Net's loop.

What `flarekit train plan --recipe` has put into the plans goes before the paper's: loss, learning
rate, schedule; plateaus and early stopping count nnU-Net's epochs, and look at its Dice of patches.
Unlike nnU-Net's own, they never punish organs that `unlabelled` of the dataset's facts names, write
checkpoints whole, and at least every 50 seconds. `FLAREKIT_EPOCHS` and `FLAREKIT_ITERATIONS`
shorten a training.
"""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import (  # type: ignore[import-not-found]
    nnUNetTrainer,
)
from nnunetv2.utilities.get_network_from_plans import (  # type: ignore[import-not-found]
    get_network_from_plans,
)
from torch import nn

from flarekit.core.errors import InputError
from flarekit.training.losses import Target
from flarekit.training.nnunet import TRAINERS
from flarekit.training.nnunet.from_recipe import regime_of
from flarekit.training.nnunet.targets import nnunet_target, region_levels, region_target
from flarekit.training.regimes import Regime, Schedule

_CHECKPOINT_EVERY_S = 50.0


class _Rates:
    """nnU-Net's interface to a schedule of learning rates."""

    def __init__(
        self, optimiser: torch.optim.Optimizer, schedule: Schedule, rate: float, epochs: int
    ) -> None:
        self._optimiser, self._schedule = optimiser, schedule
        self._rate, self._epochs = rate, epochs
        self.slower = 1.0  # after plateaus

    def step(self, epoch: int) -> None:
        """Set the rate of an epoch."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.slower * self._rate * self._schedule.factor(epoch / self._epochs)


class _EndedError(Exception):
    """Validation has not improved for as long as the schedule waits."""


class FlarekitNnunet(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's network and regime, with our loss; the others change the regime."""

    architecture: ClassVar[str] = "nnunet"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        regime = self.regime
        self.initial_lr = regime.optimiser.learning_rate
        self.weight_decay = regime.optimiser.weight_decay
        self.num_epochs = int(os.environ.get("FLAREKIT_EPOCHS", regime.schedule.epochs))
        self.num_iterations_per_epoch = regime.iterations
        self.num_val_iterations_per_epoch = regime.validations
        if "FLAREKIT_ITERATIONS" in os.environ:
            self.num_iterations_per_epoch = int(os.environ["FLAREKIT_ITERATIONS"])
            self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self.enable_deep_supervision = False  # targets stay whole: the loss resizes them
        self.save_every = 1
        self._saved_s = time.monotonic()
        self._image: torch.Tensor | None = None

    @property
    def regime(self) -> Regime:
        """The recipe's that was planned with; the paper's where there was none."""
        return regime_of(self.plans_manager.plans, self.architecture)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,  # noqa: ANN401, ARG004 - nnU-Net's signature
        configuration_manager: Any,  # noqa: ANN401
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Return the network of the plans, with every output that it can be supervised at."""
        network: nn.Module = get_network_from_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            allow_init=True,
            deep_supervision=True,
        )
        _supervise(network, enabled=enable_deep_supervision)
        return network

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the outputs that only training looks at."""
        network = self.network.module if self.is_ddp else self.network
        _supervise(network, enabled=enabled)

    def _do_i_compile(self) -> bool:
        return False  # the selective scan's backends cannot be traced

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, _Rates]:
        """Return the paper's optimiser and schedule."""
        optimiser = self.regime.optimiser.build(self.network.parameters())
        return optimiser, _Rates(optimiser, self.regime.schedule, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> Any:  # noqa: ANN401 - nnU-Net calls it with outputs and target
        names = self.dataset_json.get("unlabelled", [])
        ignored, regions = self.label_manager.ignore_label, self.label_manager.has_regions
        if names and (ignored is not None or regions):
            raise InputError(
                "the dataset has unlabelled organs, and regions or an ignore label",
                fix="leave one of them out",
            )
        classes = self.label_manager.num_segmentation_heads
        unlabelled = [int(self.dataset_json["labels"][name]) for name in names]

        def loss(outputs: Any, target: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
            if not regions:
                known = nnunet_target(target, classes, ignored=ignored, unlabelled=unlabelled)
                return self._objective(outputs, known)
            terms = [
                self._objective(
                    region_levels(outputs, index),
                    region_target(target, index, ignored=ignored is not None),
                )
                for index in range(classes)
            ]
            return torch.stack(terms).mean()

        return loss

    def _objective(self, outputs: Any, target: Target) -> torch.Tensor:  # noqa: ANN401
        assert self._image is not None
        regime = self.regime
        epoch = regime.schedule.epoch(self.current_epoch / self.num_epochs)
        return regime.objective(
            outputs, target, self._image, architecture=self.architecture, epoch=epoch
        )

    def _after_validations(self) -> tuple[float, bool]:
        dice = self.logger.get_value("mean_fg_dice", step=None)
        return self.regime.schedule.after(dice[: self.current_epoch])

    def run_training(self) -> None:
        """Train, until validation has not improved for as long as the schedule waits."""
        if self._after_validations()[1]:  # ended before it was killed
            self.num_epochs = self.current_epoch
        try:
            super().run_training()
        except _EndedError:
            self.print_to_log_file("Training ends here: validation has not improved.")
            self.on_train_end()

    def on_epoch_end(self) -> None:
        """End an epoch, and the training where the schedule says so."""
        super().on_epoch_end()
        if self._after_validations()[1] and self.current_epoch < self.num_epochs:
            raise _EndedError

    def on_train_epoch_start(self) -> None:
        """Begin an epoch, all outputs on, at the rate that validation leaves."""
        self.lr_scheduler.slower = self._after_validations()[0]
        self.set_deep_supervision_enabled(True)
        super().on_train_epoch_start()

    def on_validation_epoch_start(self) -> None:
        """Begin a validation, as in prediction."""
        self.set_deep_supervision_enabled(False)
        super().on_validation_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train on a batch; save now and then, as before this epoch where a kill ends it."""
        self._image = batch["data"].to(self.device, non_blocking=True)
        result: dict[str, Any] = super().train_step(batch)
        if time.monotonic() - self._saved_s > _CHECKPOINT_EVERY_S:
            self.current_epoch -= 1
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
            self.current_epoch += 1
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate on a batch."""
        self._image = batch["data"].to(self.device, non_blocking=True)
        result: dict[str, Any] = super().validation_step(batch)
        return result

    def save_checkpoint(self, filename: str) -> None:
        """Write under another name first, so that a kill leaves the last checkpoint whole."""
        if self.disable_checkpointing or self.local_rank != 0:
            super().save_checkpoint(filename)
            return
        temporary = Path(f"{filename}.tmp")
        super().save_checkpoint(str(temporary))
        temporary.replace(filename)
        self._saved_s = time.monotonic()


def _supervise(network: nn.Module, *, enabled: bool) -> None:
    for module in network.modules():
        if hasattr(module, "deep_supervision"):
            setattr(module, "deep_supervision", enabled)  # noqa: B010 - no Module declares it


# nnU-Net finds a trainer by the name of its class; what the papers do differently is in `regimes`
for _architecture, _name in TRAINERS.items():
    if _architecture != FlarekitNnunet.architecture:
        _own = {"architecture": _architecture, "__module__": __name__}
        globals()[_name] = type(_name, (FlarekitNnunet,), _own)
