"""nnU-Net's own files, typed: `plans.json` and checkpoints of versions 2.0 to 2.8.

They come from somebody else, so every field may be absent, of another type or of an older version:
what is wrong is named with its file and field before anything is written.
"""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from flarekit.core.json_files import no_bool

_SPLINES = "resample_data_or_seg_to_shape"
_MOST = 10_000  # channels of a layer, voxels of a patch along an axis
_MOST_STAGES, _MOST_LAYERS, _WIDEST = 16, 100, 31  # of a network; of a stage; of kernel or stride


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=_MOST)]
Axis = Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=2)]
Order = Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=5)]
Length = Annotated[float, BeforeValidator(no_bool), Field(gt=0, allow_inf_nan=False)]
Figure = Annotated[float, BeforeValidator(no_bool), Field(allow_inf_nan=False)]
Stages = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=_MOST_STAGES)]
Layers = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=_MOST_LAYERS)]
Size = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=_WIDEST)]
Sizes = tuple[Size | tuple[Size, ...], ...]
PerStage = Layers | tuple[Layers, ...]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Resampling(_File):
    """Arguments of a resampling function; None where the function's default holds."""

    order: Order | None = None
    order_z: Order = 0
    force_separate_z: bool | None = None


class NetworkArguments(_File):
    """Arguments of a network of dynamic_network_architectures."""

    n_stages: Stages
    features_per_stage: Count | tuple[Count, ...]
    kernel_sizes: Size | Sizes
    strides: Size | Sizes
    n_conv_per_stage: PerStage | None = None
    n_blocks_per_stage: PerStage | None = None
    n_conv_per_stage_decoder: PerStage
    conv_op: str | None = None
    norm_op: str | None = None
    nonlin: str | None = None
    dropout_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    nonlin_kwargs: dict[str, Any] | None = None


class Architecture(_File):
    """The block that plans have from 2.5 on."""

    network_class_name: str
    arch_kwargs: NetworkArguments


class FlatNetwork(_File):
    """What older plans say of the network, beside everything else."""

    class_name: str = Field("PlainConvUNet", alias="UNet_class_name")
    base_features: Count = Field(alias="UNet_base_num_features")
    most_features: Count = Field(alias="unet_max_num_features")
    kernel_sizes: Sizes = Field(alias="conv_kernel_sizes")
    strides: Sizes = Field(alias="pool_op_kernel_sizes")
    n_conv_per_stage: PerStage = Field(alias="n_conv_per_stage_encoder")
    n_conv_per_stage_decoder: PerStage


class Configuration(_File):
    """One configuration, with what it inherits."""

    patch_size: tuple[Count, ...] = Field(min_length=2, max_length=3)
    spacing: tuple[Length, ...] = Field(min_length=2, max_length=3)
    normalization_schemes: tuple[str, ...] = Field(min_length=1)
    use_mask_for_norm: tuple[bool, ...] | None = None
    resampling_fn_data: str = _SPLINES
    resampling_fn_data_kwargs: Resampling | None = None
    resampling_fn_probabilities: str = _SPLINES
    resampling_fn_probabilities_kwargs: Resampling | None = None
    architecture: Architecture | None = None
    previous_stage: str | None = None


class Plans(_File):
    """The whole of `plans.json`; configurations are typed once their inheritance is resolved."""

    dataset_name: str | None = None
    configurations: dict[str, dict[str, Any]]
    transpose_forward: tuple[Axis, Axis, Axis] = (0, 1, 2)
    intensities: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        validation_alias=AliasChoices(
            "foreground_intensity_properties_per_channel",
            "foreground_intensity_properties_by_modality",
        ),
    )


class Window(_File):
    """Intensities of a channel's foreground."""

    percentile_00_5: Figure
    percentile_99_5: Figure
    mean: Figure
    std: Annotated[Figure, Field(ge=0)]


class Arguments(_File):
    """What a checkpoint says of how its trainer was called."""

    configuration: str | None = None


class Checkpoint(_File):
    """A checkpoint beside its weights."""

    trainer_name: str = "unknown"
    init_args: Arguments | None = None
    inference_allowed_mirroring_axes: Annotated[
        tuple[Axis, ...] | None, BeforeValidator(_as_list)
    ] = None
