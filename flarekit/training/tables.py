"""The tables of `recipe.toml` that say how a network is trained."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from flarekit.core.grid import Side, Spacing
from flarekit.core.tables import Table
from flarekit.training.regimes import OptimiserKind, Rate, RegimeFacts, Spread

LARGEST_BATCH = 4096
Share = Annotated[float, Field(ge=0, le=1)]
Chance = Share
Factor = Annotated[float, Field(gt=0)]
Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH, strict=True)]
Average = Annotated[float, Field(ge=0, lt=1)]


class OrganFacts(Table):
    """The `[training.augmentation.organs]` table: organs of a CT as they are in disease.

    Attributes:
        changed: how often one organ of a sample is made larger or smaller, and moved.
        factor: least and greatest factor of its lengths, by name of a label or a neighbour; organs
            that are not named keep their size.
        shift_mm: standard deviation of how far it is moved, along each axis.
        removed: how often an organ is replaced by fat or soft tissue, by label name.
        lesions: how often up to three cysts or tumours are put into organs, whose part they stay.
        lesion_labels: the organs that get them.
        contrast: how often the scan is shown with less contrast medium, or in another phase.
        fluid: how often fluid stands in the fat around organs.
    """

    changed: Chance = 0.0
    factor: dict[str, tuple[Factor, Factor]] = Field(default_factory=dict)
    shift_mm: Spread = 0.0
    removed: dict[str, Chance] = Field(default_factory=dict)
    lesions: Chance = 0.0
    lesion_labels: tuple[str, ...] = ()
    contrast: Chance = 0.0
    fluid: Chance = 0.0

    @field_validator("factor")
    @classmethod
    def _ordered(cls, factor: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (least, most) in factor.items():
            if not 0.7 <= least <= most <= 3.0:
                raise ValueError(f"{name}: give [least, most] between 0.7 and 3")
        return factor

    @property
    def textured(self) -> set[str]:
        """Names of the labels whose voxels are changed."""
        return {*self.removed, *self.lesion_labels}


class AugmentationFacts(Table):
    """The `[training.augmentation]` table: how far samples are taken from what they were.

    Attributes:
        rotation_deg_ZYX: standard deviations of the turns about Z, Y and X.
        scale: of the logarithm of the size; once for all axes, once for each.
        elastic_mm: of smooth displacements.
        mirror_axes: axes (0 is Z) flipped in every other sample; none where left and right differ.
        intensity: factor on all changes of intensity; 0 is none.
        low_resolution: how often a sample is blurred by being sampled coarsely first.
        oral_contrast: how often blobs of unlabelled soft tissue are as bright on a CT, the only
            channel, as bowel full of contrast medium.
        hidden: how often a channel, by name, is empty: a network that must do without the CT at
            times does not lean on how a scanner, or a synthesis, draws it.
        organs: organs as they are in disease; on a CT, the only channel.
    """

    rotation_deg_ZYX: tuple[Spread, Spread, Spread] = (12.0, 5.0, 5.0)
    scale: Spread = 0.1
    elastic_mm: Spread = 0.0
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2, strict=True)], ...] = ()
    intensity: Spread = 1.0
    low_resolution: Chance = 0.0
    oral_contrast: Chance = 0.0
    hidden: dict[str, Chance] = Field(default_factory=dict)
    organs: OrganFacts = OrganFacts()


class SynthesisFacts(Table):
    """The `[training.synthesis]` table: cases made from a seed and a folder of material.

    Attributes:
        kind: `ct_lesions` puts lesions into the CTs of the material; `wholebody_petct` makes PET/CT
            from its organ label maps, whose organs may be auxiliary classes. Their label is the
            predictor's only one.
        seeds: first and one past the last.
        share: fraction of samples taken from these cases.
        held_out: beginnings of the names of files of the material that are never used.
    """

    kind: Literal["ct_lesions", "wholebody_petct"]
    seeds: tuple[int, int]
    share: Share
    held_out: tuple[str, ...] = ()


class HardNegativeFacts(Table):
    """The `[training.hard_negatives]` table: background that looks like what is looked for.

    Attributes:
        channel: its name; its intensities are normalised by a window.
        above: what counts, in the channel's own unit (SUV, HU).
        share: fraction of samples that are centred there; large connected parts more often than
            small ones, but not by their volume.
    """

    channel: str
    above: float
    share: Share


class NegativeFacts(Table):
    """The `[training.negatives]` table: scans of other parts of the body, without any label.

    Attributes:
        share: fraction of samples taken from them.
        possible: labels that may be in a scan all the same, by the beginning of its file name; they
            are never punished there.
        part: part of a scan's height that is used, as fractions from its lowest slice up, by the
            beginning of its file name; all of it where none is named.
    """

    share: Share
    possible: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    part: dict[str, tuple[Share, Share]] = Field(default_factory=dict)


class DatasetFacts(Table):
    """One `[[training.datasets]]` table, where a recipe takes labelled cases of several folders.

    Attributes:
        folder: its name in the folder that holds all of them, as nnU-Net names raw datasets.
        share: fraction of samples taken from it.
        layout: `nnunet` (imagesTr, labelsTr); `wholebody_pet` has `X_suv.nii.gz`, where there is a
            CT on the same grid `X_ct.nii.gz`, and where there are lesions `X_label.nii.gz`.
        known_Z: of whole bodies, by the X of their names: ranges of stored slices (first, one past
            the last) outside which there are lesions that nobody labelled. Each range is a case.
        added: of whole bodies: most lesions that every second copy (`OtherCtFacts`) gets beside
            its own.
    """

    folder: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    share: Share
    layout: Literal["nnunet", "wholebody_pet"] = "nnunet"
    known_Z: dict[str, tuple[tuple[int, int], ...]] = Field(default_factory=dict)
    added: Annotated[int, Field(ge=0)] = 0


class OtherCtFacts(Table):
    """The `[training.other_ct]` table: PET/CTs whose CT is not what it should be.

    Attributes:
        copies: so many of each real case are made, the first of them with its own CT.
        flat: how often the CT is one value inside the outline of the PET, and air around it. It is
            always so where there is no CT.
        shifted: how often the CT lies beside the PET.
        shift_mm: standard deviation of how far, along each axis.
        partial: how often the CT ends within the PET's field of view.
    """

    copies: Annotated[int, Field(ge=1)] = 1
    flat: Chance = 0.0
    shifted: Chance = 0.0
    shift_mm: Spread = 8.0
    partial: Chance = 0.0


class ViewFacts(Table):
    """The `[training.views]` table: samples are windows around a click in a lesion.

    For networks that see a whole volume of interest at once (spacing `fit`). At prediction a window
    ends where the scan does, or at `most_voxels`; here it ends earlier as well, so that neither the
    window nor the padding in it tells how large a lesion is.

    Attributes:
        context: least and greatest width of a window, in widths of the lesion; in between evenly by
            its logarithm, and no wider than the scan allows.
        least_mm: no window is smaller.
        most_voxels: of the scan, in each direction of the plane; ULS23's volumes have 256.
        off_centre: standard deviation of the click from the lesion's middle, in widths of the
            lesion.
        anywhere: how often the click is anywhere in the lesion instead.
        border: how often the scan is made to end on one side of the lesion, near it.
    """

    context: tuple[Factor, Factor] = (1.2, 30.0)
    least_mm: Annotated[float, Field(gt=0)] = 16.0
    most_voxels: Annotated[int, Field(ge=2)] = 256
    off_centre: Spread = 0.1
    anywhere: Chance = 0.2
    border: Chance = 0.15


class StageFacts(Table):
    """One `[[training.stages]]` table: a part of the training, and what is another in it.

    Stages follow each other in one run. Each begins with the averaged weights of the one before,
    with an optimiser of its own whose rate follows the stage's own time. What is not named here is
    as it stands in `[training]` and in the predictor's grid.

    Attributes:
        minutes: of this stage; where a run is told how long it takes, stages share that in
            proportion to their minutes.
        spacing_mm_ZYX: of the samples, such as a coarser one at which more of the body fits into
            one; needs `case_grid = "scan"`.
        tile_ZYX: voxels per sample.
        batch: samples per step.
        optimiser: its kind, in place of the regime's.
        learning_rate: in place of the regime's.
        average: weight of the past in the running average of the weights.
        augmentation: of the samples, the whole table in place of the recipe's.
    """

    minutes: Annotated[float, Field(gt=0)]
    spacing_mm_ZYX: tuple[Spacing, Spacing, Spacing] | None = None
    tile_ZYX: tuple[Side, Side, Side] | None = None
    batch: Batch | None = None
    optimiser: OptimiserKind | None = None
    learning_rate: Rate | None = None
    average: Average | None = None
    augmentation: AugmentationFacts | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is another in `[training]`, by name."""
        named = self.model_fields_set - {"minutes", "spacing_mm_ZYX"}
        return {name: getattr(self, name) for name in named}


class TrainingFacts(RegimeFacts):
    """The `[training]` table; loss, optimiser and schedule are in `RegimeFacts`.

    Attributes:
        held_out: case ids that are never trained on; `*` and `?` stand for any characters.
        validation: case ids that are not trained on either; choices are made on them. Patterns as
            well.
        datasets: where labelled cases come from; one folder, named on the command line, where this
            is empty.
        other_ct: PET/CTs with a missing or misplaced CT.
        views: how windows around lesions are cut.
        neighbours: values, in the label maps, of organs that the predictor does not segment, by
            name: samples are centred on them and they change their size as labels do.
        unlabelled: labels that the real cases do not have; never punished where they may lie.
        labelled: which labels a case has, by a pattern of its id, the first that fits; all others
            are unlabelled in it. A case that fits none has all labels but `unlabelled`.
        near: a labelled organ; unlabelled organs lie within `near_mm` of it, or nowhere. Without
            it they may lie anywhere in the background.
        phantom_seeds: first and one past the last seed of the abdominal phantoms trained on.
        phantom_share: fraction of samples taken from phantoms, in [0, 1].
        synthesis: other synthetic cases.
        negatives: scans in which nothing is to be found.
        stages: parts of the training that differ from each other; none where it is of one piece.
        tile_ZYX: voxels per training sample; Z = 1 for 2D networks.
        batch: samples per step.
        average: weight of the past in the running average of the weights, which is what is
            exported.
        case_grid: grid on which cases are kept: the `network`'s, or the `scan`'s own, from which
            every sample is read once, at whatever size and turn it has.
        foreground: fraction of samples that are centred near a labelled voxel.
        hard_negatives: where further samples are centred.
        augmentation: of the samples.
    """

    held_out: tuple[str, ...]
    validation: tuple[str, ...] = ()
    neighbours: dict[str, Annotated[int, Field(ge=1, le=254)]] = Field(default_factory=dict)
    datasets: tuple[DatasetFacts, ...] = ()
    other_ct: OtherCtFacts | None = None
    views: ViewFacts | None = None
    unlabelled: tuple[str, ...] = ()
    labelled: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    near: str | None = None
    near_mm: float = 50.0
    phantom_seeds: tuple[int, int] = (0, 0)
    phantom_share: Share = 0.0
    synthesis: SynthesisFacts | None = None
    negatives: NegativeFacts | None = None
    stages: tuple[StageFacts, ...] = ()
    tile_ZYX: tuple[Side, Side, Side]
    batch: Batch = 2
    average: Average = 0.998
    case_grid: Literal["network", "scan"] = "network"
    foreground: Share = 0.67
    hard_negatives: HardNegativeFacts | None = None
    augmentation: AugmentationFacts = AugmentationFacts()


class Provenance(Table):
    """What a recipe says of its data, for cards; further words are free.

    Attributes:
        dataset: the folder that is spoken of.
        data: what was trained on, one sentence each.
        licence: of the data.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    dataset: str = ""
    data: tuple[str, ...] = ()
    licence: str = ""
