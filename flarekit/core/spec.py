"""The facts of a predictor, as `predictor.toml` states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from flarekit.core.channels import BodyCrop, Channel, NonzeroCrop, Number, Window
from flarekit.core.errors import PredictorError
from flarekit.core.expected import Expected
from flarekit.core.files import write_atomically
from flarekit.core.first_pass import Coarse, Locator
from flarekit.core.gate import Gate
from flarekit.core.grid import Fast, Grid, Nnunet
from flarekit.core.network import Architecture, Weights, check_network
from flarekit.core.schema import SCHEMA, check_schema
from flarekit.core.tables import LabelName, Name, Table, Title, checked, read_toml

Mode = Literal["exact", "fast"]
HalfPrecision = Literal["fp16", "bf16"]
_BODY_HU = -300.0  # skin and fat, not air
_BODY_SUV = 0.4  # muscle and blood take up more; what lies around a body seldom does
_BODY_MARGIN_MM = 10.0
_HIGHEST_VALUE = 255


class Rule(Table):
    """A post-processing rule: its name in `flarekit.postprocess`, labels (by name) and value.

    Attributes:
        gate: what lesions are shaped like, for the rule `shape_gate`.
    """

    name: str
    labels: tuple[str, ...]
    value: Number | None = None
    gate: Gate | None = None


class PredictorSpec(Table):
    """Everything about a predictor but the weights themselves.

    Attributes:
        labels: label name -> value in the mask, 1..255; background is 0 and not listed. The
            network's class k is the k-th label in order of value, class 0 the background.
        only_labels: those of them that masks get; all where empty.
        auxiliary: further classes of the network, after those of the labels: what it was taught to
            tell from them, such as normal organs. Background in masks.
        internal: name -> auxiliary classes that stay one class of this name until the rules have
            run, which may name it; background in masks as well.
        convention_settings: what the convention wants to know; each says what in its file.
        nnunet: present where the scan is prepared exactly as nnU-Net does.
        fast: what the mode `fast` may change.
        coarse: a first pass that tells where to look (`fast` only).
        locator: what gives a whole mask at once, and tells which tiles come first.
        half_precisions: those in which every activation of the network stays finite and masks are
            those of float32 but for a few voxels; `--precision auto` takes no other.
        ensemble: further weights of the same architecture; logits are averaged over all.
        expected: label -> what it measured in training, for quality flags.
        provenance: where the weights come from (data, licence, command, date), for the card.
    """

    name: Name
    title: Title
    convention: str
    convention_settings: dict[str, Any] = Field(default_factory=dict)
    architecture: Architecture
    channels: tuple[Channel, ...] = Field(min_length=1)
    crop: BodyCrop | NonzeroCrop | None = None
    grid: Grid
    nnunet: Nnunet | None = None
    fast: Fast = Fast()
    coarse: Coarse | None = None
    locator: Locator | None = None
    labels: dict[LabelName, Annotated[int, Field(ge=1, le=255, strict=True)]] = Field(min_length=1)
    only_labels: tuple[str, ...] = ()
    auxiliary: tuple[LabelName, ...] = ()
    internal: dict[LabelName, tuple[str, ...]] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    half_precisions: tuple[HalfPrecision, ...] = ("fp16", "bf16")
    weights: Weights
    ensemble: tuple[Weights, ...] = ()
    expected: dict[str, Expected] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PredictorSpec:
        if len(set(self.labels.values())) != len(self.labels):
            raise ValueError("two labels share one value")
        if len({*self.labels, *self.auxiliary}) != len(self.labels) + len(self.auxiliary):
            raise ValueError("a class is named twice in labels and auxiliary")
        if self.auxiliary and self.nnunet is not None and self.nnunet.region_values:
            raise ValueError("auxiliary classes and regions do not go together")
        self._check_internal()
        check_network(self.architecture, (self.weights, *self.ensemble), self.auxiliary)
        crop = self.crop
        if isinstance(crop, BodyCrop) and len(crop.thresholds) not in (1, len(self.channels)):
            raise ValueError("crop: give one threshold, or one per channel")
        self._check_first_pass()
        if unknown := sorted(set(self.only_labels) - set(self.labels)):
            raise ValueError(f"only_labels names unknown labels {unknown}")
        if unknown := sorted(set(self.expected) - set(self.labels)):
            raise ValueError(f"expected names unknown labels {unknown}")
        for rule in self.rules:
            unknown = sorted(set(rule.labels) - set(self.rule_labels))
            if unknown:
                raise ValueError(f"rule {rule.name!r} names unknown labels {unknown}")
        return self

    def _check_first_pass(self) -> None:
        if self.locator is None:
            return
        if self.coarse is not None:
            raise ValueError("coarse and locator do not go together: one first pass is enough")
        unknown = sorted(set(self.locator.labels.values()) - set(self.labels))
        if unknown:
            raise ValueError(f"locator: the predictor has no labels {unknown}")
        small, usual = self.locator.small_tile_ZYX, self.grid.tile_ZYX
        if small is None:
            return
        if usual[0] == 1 or small[0] == 1:
            raise ValueError("locator.small_tile_ZYX is for 3D networks")
        if any(side > longest for side, longest in zip(small, usual, strict=True)):
            raise ValueError(f"locator.small_tile_ZYX is larger than grid.tile_ZYX {list(usual)}")

    def _check_internal(self) -> None:
        parts = [part for group in self.internal.values() for part in group]
        if len(set(parts)) != len(parts) or not set(parts) <= set(self.auxiliary):
            raise ValueError("internal: name each auxiliary class once at most, and nothing else")
        if not all(self.internal.values()) or set(self.internal) & set(self.labels):
            raise ValueError("internal: an empty class, or one named as a label is")
        if max(self.rule_labels.values()) > _HIGHEST_VALUE:
            raise ValueError("the labels leave no values to internal classes")

    @property
    def mask_labels(self) -> dict[str, int]:
        """Label name -> value of those that masks get."""
        wanted = self.only_labels or tuple(self.labels)
        return {name: value for name, value in self.labels.items() if name in wanted}

    @property
    def class_values(self) -> tuple[int, ...]:
        """Mask value of each class, background first; of each region, without background.

        Classes are those of the network once auxiliary ones are merged: labels, then internal ones.
        """
        if self.nnunet is not None and self.nnunet.region_values:
            return self.nnunet.region_values
        return (0, *sorted(self.rule_labels.values()))

    @property
    def rule_labels(self) -> dict[str, int]:
        """Value of everything that rules may name, in the maps they work on."""
        return self.labels | dict(zip(self.internal, self.internal_values, strict=True))

    @property
    def internal_values(self) -> tuple[int, ...]:
        """Value of each internal class."""
        first = max(self.labels.values()) + 1
        return tuple(range(first, first + len(self.internal)))

    def for_mode(self, mode: Mode) -> PredictorSpec:
        """Return the facts that a mode runs.

        `exact` is nnU-Net's arithmetic: cubic splines for intensities, labels decided on the scan's
        grid, every tile and flip that the facts name. `fast` resamples once, linearly, takes the
        step of `fast`, no flips, and looks at the body only.
        """
        if mode == "exact":
            exact = {"image_order": 3, "decide": "scan"}
            grid = self.grid.model_copy(update=exact)
            return self.model_copy(update={"grid": grid, "coarse": None})
        fast = {
            "step": self.fast.step,
            "decide": self.fast.decide,
            "mirror_axes": (),
            "sums": "fp32",
        }
        changes: dict[str, Any] = {"grid": self.grid.model_copy(update=fast)}
        if self.nnunet is not None:
            linear = {"image_order": 1, "image_order_z": 1, "logits_order": 1, "logits_order_z": 1}
            changes["nnunet"] = self.nnunet.model_copy(update=linear)
            known = [_body_threshold(channel) for channel in self.channels]
            thresholds = tuple(each for each in known if each is not None)
            if len(thresholds) == len(known):
                changes["crop"] = BodyCrop(threshold=thresholds, margin_mm=_BODY_MARGIN_MM)
        return self.model_copy(update=changes)


def _body_threshold(channel: Channel) -> float | None:
    """Return what a body is brighter than in a channel; None where its unit is not known."""
    if channel.is_uptake:
        return _BODY_SUV
    return _BODY_HU if isinstance(channel.intensity, Window) else None


@dataclass(frozen=True, kw_only=True, repr=False)
class PredictorFolder:
    """A predictor on disk: its facts and where its files are.

    Attributes:
        locator: the folder inside it that `[locator]` names; None where it has none.
        trusted: somebody has said that it may execute what it names: a class of its own, or a
            TorchScript file.
    """

    folder: Path
    spec: PredictorSpec
    locator: PredictorFolder | None = None
    trusted: bool = False

    def __repr__(self) -> str:
        """Return name, title and folder: all facts, in `spec`, would fill a page."""
        return f"PredictorFolder({self.name!r}, {self.title!r}, folder={str(self.folder)!r})"

    @property
    def name(self) -> str:
        """Return the predictor's name."""
        return self.spec.name

    @property
    def title(self) -> str:
        """What it finds, in a few words."""
        return self.spec.title

    @property
    def labels(self) -> dict[str, int]:
        """Label name -> value in the mask."""
        return dict(self.spec.labels)

    @property
    def card(self) -> Path:
        """What it was trained on, how good it is, what it cannot do."""
        return self.folder / "CARD.md"

    @property
    def weights(self) -> Path:
        """Return the path of the weights file; of an ensemble, the first."""
        return self.folder / self.spec.weights.file

    @property
    def members(self) -> dict[Path, Weights]:
        """Every weights file of the network, the ensemble's included, with what it should be."""
        return {self.folder / each.file: each for each in (self.spec.weights, *self.spec.ensemble)}

    @property
    def all_members(self) -> dict[Path, Weights]:
        """Every weights file, the locator's included, with what it should be."""
        return self.members | (self.locator.members if self.locator is not None else {})


def parse_spec(content: Mapping[str, Any], *, source: str) -> PredictorSpec:
    """Check and type the content of a `predictor.toml`.

    Raises:
        PredictorError: naming the fields that are missing, unknown or out of range, three at most.
    """
    stated = {name: value for name, value in content.items() if name != "schema"}
    check_schema(content.get("schema", 1), source)
    return checked(PredictorSpec, stated, source=source)


def read_spec(folder: Path) -> PredictorFolder:
    """Read `predictor.toml` in a folder.

    Raises:
        PredictorError: no such file, not TOML, or facts that do not hold together.
    """
    path = folder / "predictor.toml"
    _, content = read_toml(path, fix="name a folder with a predictor.toml")
    spec = parse_spec(content, source=str(path))
    return PredictorFolder(folder=folder, spec=spec, locator=_locator_of(folder, spec))


def _locator_of(folder: Path, spec: PredictorSpec) -> PredictorFolder | None:
    if spec.locator is None:
        return None
    found = read_spec(folder / spec.locator.folder)
    own, source = found.spec, found.folder / "predictor.toml"
    unknown = sorted(set(spec.locator.labels) - set(own.labels))
    if unknown:
        raise PredictorError(
            f"{source}: has no labels {', '.join(unknown)}, which {folder / 'predictor.toml'} maps",
            fix="correct [locator.labels]",
        )
    if own.locator is not None or (own.nnunet is not None and own.nnunet.region_values):
        raise PredictorError(
            f"{source}: a locator has no locator and no overlapping regions itself",
            fix="train one with flarekit train",
        )
    if len(own.channels) != len(spec.channels):
        raise PredictorError(
            f"{source}: takes {len(own.channels)} channels, {spec.name} {len(spec.channels)}",
            fix="take a locator of the same channels, or remove [locator]",
        )
    if own.weights.sha256 != spec.locator.sha256:
        raise PredictorError(
            f"{source}: is another locator than {folder / 'predictor.toml'} names (SHA-256)",
            fix="put the right one there, or correct sha256 in [locator]",
        )
    return found


def write_spec(folder: Path, facts: Mapping[str, Any], *, head: str) -> None:
    """Write `predictor.toml`, checked before anything is written.

    Args:
        folder: of the predictor.
        facts: what `parse_spec` takes; None values are left out.
        head: a comment on who wrote it.

    Raises:
        PredictorError: the facts do not hold together.
        OutputError: it could not be written.
    """
    import tomli_w

    parse_spec(facts, source=str(folder / "predictor.toml"))
    content = f"# {head}\n\n{tomli_w.dumps({'schema': SCHEMA, **facts})}"
    write_atomically(folder / "predictor.toml", content.encode())
