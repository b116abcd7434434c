"""nnU-Net plans, with the `architecture` block (from 2.5 on) and without, in our terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import PredictorError

_PLAIN, _RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
_SPLINES = "resample_data_or_seg_to_shape"
_OPERATORS = {  # what our networks are built from; the last part of the import path
    "conv_op": ("Conv2d", "Conv3d"),
    "norm_op": ("InstanceNorm2d", "InstanceNorm3d"),
    "nonlin": ("LeakyReLU",),
    "dropout_op": (None,),
}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration of the plans, inheritance resolved."""

    source: Path
    content: Mapping[str, Any]

    def refuse(self, what: str) -> PredictorError:
        """Return the error for something that is not supported."""
        return PredictorError(
            f"{self.source}: {what} is not supported", fix="see the documentation"
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
        arguments = {"input_channels": input_channels, "num_classes": num_classes, **topology}
        blocks = arguments.pop("n_blocks_per_stage", None)
        if blocks is not None:
            arguments["n_conv_per_stage"] = blocks
        if any(".hgConvs." in key for key in weights):
            return "mamba_clinix", arguments
        if any("mamba_layer" in key for key in weights):
            everywhere = any(key.startswith("encoder.mamba_layers.") for key in weights)
            if everywhere:
                arguments |= {"mamba": "enc", "input_size": list(self.content["patch_size"])}
            gated = any("attention_gates" in key for key in weights)
            return ("att_umamba" if gated else "umamba"), arguments
        if class_name not in (_PLAIN, _RESIDUAL):
            raise self.refuse(f"network {class_name!r}")
        if class_name == _RESIDUAL:
            arguments["residual"] = True
        return "nnunet", arguments

    def channels(self, names: Mapping[str, str], plans: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the channels with their normalisation.

        Raises:
            PredictorError: a normalisation that is not known.
        """
        schemes = self.content["normalization_schemes"]
        masks = self.content.get("use_mask_for_norm") or [False] * len(schemes)
        properties = plans["foreground_intensity_properties_per_channel"]
        return [
            {
                "name": str(names.get(str(k), f"channel_{k}")),
                "intensity": self._intensity(scheme, properties[str(k)], masked=bool(masks[k])),
            }
            for k, scheme in enumerate(schemes)
        ]

    def grid(self, mirror_axes: Iterable[int]) -> dict[str, Any]:
        """Return spacing, tile and step; a 2D configuration sees slices at the scan's spacing."""
        spacing = [float(value) for value in self.content["spacing"]]
        tile = [int(value) for value in self.content["patch_size"]]
        flat = len(tile) == 2
        return {
            "spacing_mm_ZYX": ["scan", *spacing[-2:]] if flat else spacing,
            "tile_ZYX": [1, *tile] if flat else tile,
            "step": 0.5,
            "sums": "fp16",
            "mirror_axes": [int(axis) + flat for axis in mirror_axes],
        }

    def arithmetic(self, plans: Mapping[str, Any]) -> dict[str, Any]:
        """Return nnU-Net's transposition and resampling.

        Raises:
            PredictorError: another resampling than nnU-Net's default.
        """
        image, logits = (
            self.content.get(f"resampling_fn_{what}_kwargs") or {}
            for what in ("data", "probabilities")
        )
        for what in ("data", "probabilities"):
            function = self.content.get(f"resampling_fn_{what}", _SPLINES)
            if function != _SPLINES:
                raise self.refuse(f"resampling function {function!r}")
        separate = image.get("force_separate_z")
        facts = {
            "transpose": [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))],
            "image_order": int(image.get("order", 3)),
            "image_order_z": int(image.get("order_z", 0)),
            "logits_order": int(logits.get("order", 1)),
            "logits_order_z": int(logits.get("order_z", 0)),
        }
        return facts if separate is None else {**facts, "separate_z": bool(separate)}

    def _intensity(
        self, scheme: str, properties: Mapping[str, float], *, masked: bool
    ) -> dict[str, Any]:
        if scheme == "CTNormalization":
            return {
                "kind": "window",
                "low_hu": float(properties["percentile_00_5"]),
                "high_hu": float(properties["percentile_99_5"]),
                "mean": float(properties["mean"]),
                "std": max(float(properties["std"]), 1e-8),
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
        if "architecture" in self.content:
            block = self.content["architecture"]
            arguments = dict(block["arch_kwargs"])
            self._check_operators(arguments)
            kept = (
                "n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage",
                "n_blocks_per_stage", "n_conv_per_stage_decoder",
            )  # fmt: skip
            topology = {key: arguments[key] for key in kept if key in arguments}
            return str(block["network_class_name"]).split(".")[-1], _lists(topology)
        kernels, strides = self.content["conv_kernel_sizes"], self.content["pool_op_kernel_sizes"]
        base, most = self.content["UNet_base_num_features"], self.content["unet_max_num_features"]
        class_name = str(self.content.get("UNet_class_name", _PLAIN))
        topology = {
            "n_stages": len(kernels),
            "features_per_stage": [min(base * 2**stage, most) for stage in range(len(kernels))],
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": self.content["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": self.content["n_conv_per_stage_decoder"],
        }
        return class_name, _lists(topology)

    def _check_operators(self, arguments: Mapping[str, Any]) -> None:
        for key, known in _OPERATORS.items():
            value = arguments.get(key)
            short = None if value is None else str(value).split(".")[-1]
            if short not in known:
                raise self.refuse(f"{key} {value!r}")


def read_configuration(plans: Mapping[str, Any], name: str, *, source: Path) -> Configuration:
    """Return a configuration of the plans, with what it inherits.

    Raises:
        PredictorError: no such configuration, or a cascade's second stage.
    """
    configurations: Mapping[str, Mapping[str, Any]] = plans.get("configurations", {})
    if name not in configurations:
        known = ", ".join(configurations) or "none"
        raise PredictorError(f"{source}: no configuration {name!r}", fix=f"known: {known}")
    content = dict(configurations[name])
    while "inherits_from" in content:
        parent = configurations[content.pop("inherits_from")]
        content = {**parent, **content}
    found = Configuration(source=source, content=content)
    if content.get("previous_stage"):
        raise found.refuse("a cascade's second stage")
    return found


def _lists(value: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
    if isinstance(value, list | tuple):
        return [_lists(each) for each in value]
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    return value
