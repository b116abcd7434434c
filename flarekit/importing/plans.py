"""nnU-Net plans, with the `architecture` block (from 2.5 on) and without, in our terms."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError, PredictorError
from flarekit.core.json_files import typed
from flarekit.importing import nnunet_files as files
from flarekit.importing.mamba_clinix import clinix_blocks

_PLAIN, _RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
_SPLINES = "resample_data_or_seg_to_shape"
_EPS, _SLOPE = 1e-5, 0.01
_MOST_NAMED = 8
_COPY = "copy the file again from the training"
_OPERATORS = {  # what our networks are built from; the last part of the import path
    "conv_op": ("Conv2d", "Conv3d"),
    "norm_op": ("InstanceNorm2d", "InstanceNorm3d"),
    "nonlin": ("LeakyReLU",),
    "dropout_op": (None,),
}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration of the plans, inheritance resolved.

    Attributes:
        source: `plans.json`.
        name: of the configuration.
        content: typed.
        flat: the network, where the plans have no `architecture` block.
        plans: the whole file.
    """

    source: Path
    name: str
    content: files.Configuration
    flat: files.FlatNetwork | None
    plans: files.Plans

    def refuse(self, what: str) -> PredictorError:
        """Return the error for something that is not supported."""
        return PredictorError(
            f"{self.source}: configurations.{self.name}: {what} is not supported",
            fix="see the documentation",
        )

    def architecture(
        self, weights: Mapping[str, Any], *, input_channels: int, num_classes: int
    ) -> tuple[str, dict[str, Any]]:
        """Return the architecture's name and arguments, told by the plans and the tensors' names.

        Trainers of the Mamba family keep plans that name a plain U-Net, and Att-UMamba's is called
        as U-Mamba's, so the keys decide.

        Raises:
            PredictorError: a network that is not known.
        """
        class_name, topology = self._topology()
        self._check_patch(topology["strides"])
        arguments = {"input_channels": input_channels, "num_classes": num_classes, **topology}
        if any(key.startswith("decoder.residual_blocks.") for key in weights):
            return "mamba_clinix", arguments | clinix_blocks(weights, topology)
        if any("mamba_layer" in key for key in weights):
            everywhere = any(key.startswith("encoder.mamba_layers.") for key in weights)
            if everywhere:
                arguments |= {"mamba": "enc", "input_size": list(self.content.patch_size)}
            gated = any("attention_gates" in key for key in weights)
            return ("att_umamba" if gated else "umamba"), arguments
        if class_name not in (_PLAIN, _RESIDUAL):
            raise self.refuse(f"network {class_name!r}")
        if class_name == _RESIDUAL:
            arguments["residual"] = True
        return "nnunet", arguments

    def channels(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the channels, by their names in order, with their normalisation.

        Raises:
            InputError: another number of channels than normalisations, or figures that are missing.
            PredictorError: a normalisation that is not known.
        """
        schemes, masks = self.content.normalization_schemes, self.content.use_mask_for_norm
        for what, stated in (("normalization_schemes", schemes), ("use_mask_for_norm", masks)):
            if stated is not None and len(stated) != len(names):
                raise self._fault(
                    f".{what} has {len(stated)} entries for the {len(names)} channels of "
                    "dataset.json",
                    fix="take both files from one training",
                )
        return [
            {
                "name": name,
                "intensity": self._intensity(scheme, k, masked=bool(masks and masks[k])),
            }
            for k, (name, scheme) in enumerate(zip(names, schemes, strict=True))
        ]

    def grid(self, mirror_axes: Iterable[int]) -> dict[str, Any]:
        """Return spacing, tile and step; a 2D configuration sees slices at the scan's spacing.

        Raises:
            InputError: patch and spacing of other dimensions, or a flip along an axis they lack.
        """
        spacing, tile = list(self.content.spacing), list(self.content.patch_size)
        flat = len(tile) == 2
        if len(spacing) < len(tile):
            what = f": spacing has {len(spacing)} numbers, patch_size {len(tile)}"
            raise self._fault(what, fix="take both from one training")
        axes = [int(axis) + flat for axis in dict.fromkeys(mirror_axes)]
        if any(axis > 2 for axis in axes):
            raise InputError(
                f"{self.source}: the checkpoint mirrors along axis 2, which patches of two "
                "dimensions do not have",
                fix="take plans and checkpoint from one training",
            )
        return {
            "spacing_mm_ZYX": ["scan", *spacing[-2:]] if flat else spacing,
            "tile_ZYX": [1, *tile] if flat else tile,
            "step": 0.5,
            "sums": "fp16",
            "mirror_axes": axes,
        }

    def arithmetic(self) -> dict[str, Any]:
        """Return nnU-Net's transposition and resampling.

        Raises:
            InputError: a transposition that names an axis twice.
            PredictorError: another resampling than nnU-Net's default.
        """
        transpose = list(self.plans.transpose_forward)
        if sorted(transpose) != [0, 1, 2]:
            raise InputError(
                f"{self.source}: transpose_forward is {transpose}, and should name 0, 1 and 2 once",
                fix=_COPY,
            )
        content = self.content
        for function in (content.resampling_fn_data, content.resampling_fn_probabilities):
            if function != _SPLINES:
                raise self.refuse(f"resampling function {function!r}")
        image = self.content.resampling_fn_data_kwargs or files.Resampling()
        logits = self.content.resampling_fn_probabilities_kwargs or files.Resampling()
        facts = {
            "transpose": transpose,
            "image_order": 3 if image.order is None else image.order,
            "image_order_z": image.order_z,
            "logits_order": 1 if logits.order is None else logits.order,
            "logits_order_z": logits.order_z,
        }
        separate = image.force_separate_z
        return facts if separate is None else {**facts, "separate_z": separate}

    def _intensity(self, scheme: str, channel: int, *, masked: bool) -> dict[str, Any]:
        if scheme == "CTNormalization":
            inside = f"foreground_intensity_properties_per_channel.{channel}"
            stated = self.plans.intensities.get(str(channel))
            if stated is None:
                what = f"{self.source}: {inside} is missing, which CTNormalization needs"
                raise InputError(what, fix=_COPY)
            window = typed(files.Window, stated, source=self.source, inside=inside)
            if window.percentile_00_5 >= window.percentile_99_5:
                what = f"{self.source}: {inside}: percentile_00_5 is not below percentile_99_5"
                raise InputError(what, fix=_COPY)
            return {
                "kind": "window",
                "low_hu": window.percentile_00_5,
                "high_hu": window.percentile_99_5,
                "mean": window.mean,
                "std": max(window.std, 1e-8),
            }
        known: dict[str, dict[str, Any]] = {
            "ZScoreNormalization": {"kind": "z_score", "masked": masked},
            "NoNormalization": {"kind": "scale", "divisor": 1.0},
            "RescaleTo01Normalization": {"kind": "rescale"},
            "RGBTo01Normalization": {"kind": "scale", "divisor": 255.0},
        }
        if scheme not in known:
            raise self.refuse(f"normalisation {scheme!r}")
        return known[scheme]

    def _topology(self) -> tuple[str, dict[str, Any]]:
        block, flat = self.content.architecture, self.flat
        if block is not None:
            stated = block.arch_kwargs
            self._check_operators(stated)
            stages, class_name = stated.n_stages, block.network_class_name.split(".")[-1]
            features: int | Sequence[int] = stated.features_per_stage
            blocks = stated.n_blocks_per_stage or stated.n_conv_per_stage
            kernels, strides, decoder = (
                stated.kernel_sizes,
                stated.strides,
                stated.n_conv_per_stage_decoder,
            )
        elif flat is not None:
            stages, class_name = len(flat.kernel_sizes), flat.class_name
            features = [
                min(flat.base_features * 2**stage, flat.most_features) for stage in range(stages)
            ]
            blocks, decoder = flat.n_conv_per_stage, flat.n_conv_per_stage_decoder
            kernels, strides = flat.kernel_sizes, flat.strides
        else:
            raise self._fault(".architecture is missing")
        if blocks is None:
            raise self._fault(".architecture.arch_kwargs.n_conv_per_stage is missing")
        axes = len(self.content.patch_size)
        return class_name, {
            "n_stages": stages,
            "features_per_stage": self._per_stage("features_per_stage", features, stages),
            "kernel_sizes": self._sizes("kernel_sizes", kernels, stages, axes),
            "strides": self._sizes("strides", strides, stages, axes),
            "n_conv_per_stage": self._per_stage("n_conv_per_stage", blocks, stages),
            "n_conv_per_stage_decoder": self._per_stage(
                "n_conv_per_stage_decoder", decoder, stages - 1
            ),
        }

    def _check_patch(self, strides: Sequence[Sequence[int]]) -> None:
        together = [math.prod(axis) for axis in zip(*strides, strict=True)]
        for size, factor in zip(self.content.patch_size, together, strict=True):
            if size % factor:
                raise self._fault(
                    f": patch_size has {size} voxels, no multiple of {factor}, which the strides "
                    "make together"
                )

    def _per_stage(self, name: str, stated: int | Sequence[int], count: int) -> list[int]:
        """Return a number for each stage; one number stands for all of them."""
        if isinstance(stated, int):
            return [stated] * count
        if len(stated) < count:
            raise self._fault(f": {name} has {len(stated)} entries for {count} stages")
        return list(stated[:count])

    def _sizes(
        self, name: str, stated: int | Sequence[int | Sequence[int]], count: int, axes: int
    ) -> list[list[int]]:
        """Return a number for each axis of each stage; one number stands for all axes."""
        each = [stated] * count if isinstance(stated, int) else list(stated)
        if len(each) != count:
            raise self._fault(f": {name} has {len(each)} entries for {count} stages")
        sizes = [[size] * axes if isinstance(size, int) else list(size) for size in each]
        if any(len(size) != axes for size in sizes):
            raise self._fault(f": {name} of {len(sizes[0])} axes for a patch of {axes}")
        return sizes

    def _fault(self, what: str, *, fix: str = _COPY) -> InputError:
        return InputError(f"{self.source}: configurations.{self.name}{what}", fix=fix)

    def _check_operators(self, stated: files.NetworkArguments) -> None:
        for key, known in _OPERATORS.items():
            value = getattr(stated, key)
            short = None if value is None else value.split(".")[-1]
            if short not in known:
                raise self.refuse(f"{key} {value!r}")
        norm, nonlin = stated.norm_op_kwargs or {}, stated.nonlin_kwargs or {}
        if norm.get("eps", _EPS) != _EPS or norm.get("affine", True) is not True:
            raise self.refuse(f"norm_op_kwargs {norm}")
        if nonlin.get("negative_slope", _SLOPE) != _SLOPE:
            raise self.refuse(f"nonlin_kwargs {nonlin}")


def read_configuration(content: Mapping[str, Any], name: str, *, source: Path) -> Configuration:
    """Return a configuration of the content of `plans.json`, with what it inherits.

    Raises:
        InputError: fields that are missing or of another type.
        PredictorError: no such configuration, or a cascade's second stage.
    """
    plans = typed(files.Plans, content, source=source)
    resolved, seen = dict[str, Any](), list[str]()
    current: object = name
    while current is not None:
        if not isinstance(current, str) or current not in plans.configurations:
            known = ", ".join(list(plans.configurations)[:_MOST_NAMED]) or "none"
            by = f", from which {seen[-1]!r} inherits" if seen else ""
            raise PredictorError(
                f"{source}: no configuration {current!r}{by}", fix=f"known: {known}"
            )
        if current in seen:
            raise InputError(
                f"{source}: configurations {' and '.join(seen)} inherit from each other",
                fix=_COPY,
            )
        seen.append(current)
        resolved = {**plans.configurations[current], **resolved}
        current = plans.configurations[current].get("inherits_from")
    inside = f"configurations.{name}"
    stated = typed(files.Configuration, resolved, source=source, inside=inside)
    flat = None
    if stated.architecture is None:
        flat = typed(files.FlatNetwork, resolved, source=source, inside=inside)
    found = Configuration(source=source, name=name, content=stated, flat=flat, plans=plans)
    if stated.previous_stage:
        raise found.refuse("a cascade's second stage")
    return found
