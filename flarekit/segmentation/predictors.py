"""Predictor folders: where they are, whether they are whole, and their networks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flarekit import conventions, models, postprocess
from flarekit.core.errors import (
    FlarekitError,
    PredictorError,
    UsageError,
    WeightsMismatchError,
)
from flarekit.core.network import NETWORK_FILES, Weights
from flarekit.core.package import PACKAGE
from flarekit.core.registry import near_miss
from flarekit.core.spec import PredictorFolder, PredictorSpec, read_spec
from flarekit.engine import Networks

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
FOLDERS_VARIABLE = "FLAREKIT_WEIGHTS"
CACHE_VARIABLE = "FLAREKIT_CACHE"
TRUST_VARIABLE = "FLAREKIT_TRUST"
IMPORTED = "weights"  # in the current folder
_TWICE, _BUFFERS = 2, 1_000_000  # what a constructor may make and drop, and what is no parameter


def weight_folders() -> list[Path]:
    """Return the folders that hold predictor folders, first match wins.

    Those of `FLAREKIT_WEIGHTS` (separated like PATH), then the ones that came with the package, and
    `weights` in the current folder, where imported ones go.

    Raises:
        UsageError: `FLAREKIT_WEIGHTS` names a folder that is not there.
    """
    added = [
        Path(entry) for entry in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if entry
    ]
    for folder in added:
        if not folder.is_dir():
            raise UsageError(
                f"{FOLDERS_VARIABLE} names {folder}, which is not a folder",
                fix="correct the variable or make the folder",
            )
    shipped = [PACKAGE / "weights", PACKAGE.parent / "weights"]  # installed; a checkout
    here = Path(IMPORTED)
    known = added + [folder for folder in shipped if folder.is_dir()][:1]
    is_known = any(here.is_dir() and here.samefile(folder) for folder in known)
    return known + ([here] if here.is_dir() and not is_known else [])


def predictor_folders() -> Iterator[Path]:
    """Yield every folder with a `predictor.toml`, each name once, sorted by name."""
    found: dict[str, Path] = {}
    for parent in weight_folders():
        for path in parent.glob("*/predictor.toml"):
            found.setdefault(path.parent.name, path.parent)
    yield from (found[name] for name in sorted(found))


def predictors() -> tuple[PredictorFolder, ...]:
    """Return the predictors at hand, sorted by name; broken ones are left out, which is logged.

    They are those of `FLAREKIT_WEIGHTS` (folders of predictors, separated like PATH), the ones
    that came with the package, and those in `weights/` of the working folder; where several have
    the same name, the first counts.

    Raises:
        UsageError: `FLAREKIT_WEIGHTS` names a folder that is not there.

    >>> import flarekit
    >>> "abdomen_ct" in [predictor.name for predictor in flarekit.predictors()]
    True
    """
    found = []
    for folder in predictor_folders():
        try:
            found.append(find_predictor(str(folder)))
        except FlarekitError as error:
            _LOG.warning("%s is left out: %s", folder, error)
    return tuple(found)


def find_predictor(name_or_folder: str, *, trust: bool = False) -> PredictorFolder:
    """Read and check a predictor's facts; its weights are not touched, and nothing is executed.

    Args:
        name_or_folder: a name in one of `weight_folders()`, or the path of a predictor folder.
        trust: it may execute what it names, a class of its own or a TorchScript file, when its
            network is built. `FLAREKIT_TRUST=1` says so for every predictor.

    Raises:
        UsageError: no such predictor.
        PredictorError: its facts do not hold together, or name rules, a convention or an
            architecture that do not exist.
    """
    known = {folder.name: folder for folder in predictor_folders()}
    folder = known.get(name_or_folder)
    if folder is None:
        folder = Path(name_or_folder)
        if not folder.is_dir():
            hint = near_miss(name_or_folder, known)
            fix = hint if hint.endswith("?") else f"{hint}; or name the path of a predictor folder"
            raise UsageError(f"no predictor {name_or_folder!r}", fix=fix)
    predictor = read_spec(folder)
    for each in (predictor, predictor.locator):
        if each is not None:
            _check_names(each)
    everyone = os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "true", "yes")
    return trusted(predictor) if trust or everyone else predictor


def trusted(predictor: PredictorFolder) -> PredictorFolder:
    """Return a predictor that may execute what it names, and so may its locator."""
    locator = predictor.locator and replace(predictor.locator, trusted=True)
    return replace(predictor, locator=locator, trusted=True)


def _check_names(predictor: PredictorFolder) -> None:
    spec = predictor.spec
    channels = [channel.name for channel in spec.channels]
    postprocess.check_rules(spec.rules, channels, source=str(predictor.folder / "predictor.toml"))
    _check_counts(predictor)
    for kind, name, names in (
        ("convention", spec.convention, conventions.names()),
        ("architecture", spec.architecture.name, (*models.names(), *NETWORK_FILES)),
    ):
        if name not in names and not (kind == "architecture" and ":" in name):
            raise PredictorError(
                f"{predictor.folder / 'predictor.toml'}: no {kind} {name!r}",
                fix=f"known: {', '.join(names)}",
            )


def _check_counts(predictor: PredictorFolder) -> None:
    """Refuse arguments of another number of channels or classes than the other facts make."""
    spec = predictor.spec
    if ":" in spec.architecture.name:  # arguments of a class of one's own mean what it likes
        return
    regions = () if spec.nnunet is None else spec.nnunet.region_values
    classes = len(regions) or 1 + len(spec.labels) + len(spec.auxiliary)
    for argument, wanted, of in (
        ("input_channels", len(spec.channels), "channels"),
        ("num_classes", classes, "labels, with auxiliary ones and background,"),
    ):
        stated = spec.architecture.arguments.get(argument)
        if isinstance(stated, int) and stated != wanted:
            raise PredictorError(
                f"{predictor.folder / 'predictor.toml'}: architecture.arguments.{argument} is "
                f"{stated}, and the {of} make {wanted}",
                fix="make them agree",
            )


def hash_state(predictor: PredictorFolder) -> models.WeightsState:
    """Return whether every weights file, the locator's included, is as the facts describe it."""
    states = [models.weights_state(path, facts) for path, facts in predictor.all_members.items()]
    return next((state for state in ("missing", "wrong") if state in states), "ok")


def networks_of(
    predictor: PredictorFolder, keep: Path | None = None, *, within: PredictorFolder | None = None
) -> Networks:
    """Return what an engine needs of a predictor; the weights are checked, not yet loaded.

    Compiled networks lie beside the weights, or in `FLAREKIT_CACHE` (`~/.cache/flarekit`).

    Args:
        predictor: from `find_predictor`.
        keep: where newly compiled networks go; the cache where None.
        within: the predictor whose locator this is; compiled networks lie with its own.

    Raises:
        WeightsMissingError, WeightsHashError, UntrustedError: as in `build_networks`.
    """
    own = check_trust(predictor)
    for path, facts in predictor.members.items():
        models.check_weights(path, facts)
    spec = predictor.spec
    weights = [facts.sha256 for facts in predictor.members.values()]
    merged = [*spec.auxiliary, *([spec.internal] if spec.internal else [])]
    code = [own.sha256()] if own is not None else []
    is_onnx = spec.architecture.name == "onnx"
    return Networks(
        build=partial(build_networks, predictor),
        channels=len(spec.channels),
        identity=json.dumps([spec.architecture.model_dump(mode="json"), weights, *merged, *code]),
        folders=(compiled_folder(within or predictor), cache_folder()),
        keep=keep or cache_folder(),
        half_precisions=spec.half_precisions,
        onnx=tuple(predictor.members) if is_onnx else (),
    )


def needs_trust(predictor: PredictorFolder) -> bool:
    """Return whether loading a predictor executes something that its folder chooses."""
    name = predictor.spec.architecture.name
    return name == "torchscript" or models.OwnClass.of(name, predictor.folder) is not None


def check_trust(predictor: PredictorFolder) -> models.OwnClass | None:
    """Return the class of its own that a predictor names; None where it names none.

    Raises:
        UntrustedError: it would execute something, and nobody has said that it may.
    """
    own = models.OwnClass.of(predictor.spec.architecture.name, predictor.folder)
    if predictor.trusted or not needs_trust(predictor):
        return own
    what = (
        own.told() if own is not None else f"run the program in {predictor.weights} (TorchScript)"
    )
    raise models.UntrustedError(
        f"{predictor.folder / 'predictor.toml'}: loading it would {what}",
        fix="read it, then add --trust (in Python trust=True), or set FLAREKIT_TRUST=1, if you "
        "trust who made it",
    )


def compiled_folder(predictor: PredictorFolder) -> Path:
    """Return where compiled networks lie beside the weights: what an image is built with."""
    return predictor.folder / "compiled"


def cache_folder() -> Path:
    """Return where what was made for this machine is kept."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flarekit"


def build_networks(predictor: PredictorFolder) -> list[nn.Module]:
    """Build the predictor's networks with their trained weights, on the CPU; most have one.

    Raises:
        WeightsMissingError, WeightsHashError, WeightsMismatchError: nothing is ever left at its
            random start.
        UntrustedError: it would execute something, and nobody has said that it may.
        PredictorError: a class of its own, or a network in a file, that cannot be loaded.
    """
    check_trust(predictor)
    return [_build(predictor, path, facts) for path, facts in predictor.members.items()]


def _build(predictor: PredictorFolder, path: Path, facts: Weights) -> nn.Module:
    models.check_weights(path, facts)
    architecture, spec = predictor.spec.architecture, predictor.spec
    if architecture.name == "onnx":
        raise PredictorError(
            f"{path}: is an ONNX network, which PyTorch does not build",
            fix="use --engine openvino on a CPU",
        )
    if architecture.name == "torchscript":
        from flarekit.models._torchscript import load_torchscript

        network = load_torchscript(path)
        return models.without_auxiliary(network, len(spec.auxiliary), _groups(spec))
    try:
        with models.at_most(_TWICE * (facts.parameters or 0) + _BUFFERS):
            network = models.build(architecture, predictor.folder, trusted=predictor.trusted)
    except models.TooLargeError as error:
        raise WeightsMismatchError(
            f"{predictor.folder / 'predictor.toml'}: the architecture has {error} in it, "
            f"weights.parameters is {facts.parameters or 0:,}",
            fix="correct the architecture's arguments",
        ) from error
    count = sum(parameter.numel() for parameter in network.parameters())
    if count != facts.parameters:
        raise WeightsMismatchError(
            f"{predictor.folder}: the architecture has {count:,} parameters, predictor.toml says "
            f"{facts.parameters or 0:,}",
            fix="correct the architecture's arguments",
        )
    models.load_weights(network, path)
    return models.without_auxiliary(network, len(spec.auxiliary), _groups(spec))


def check_whole(predictor: PredictorFolder) -> None:
    """Build a predictor's networks and its locator's, or, of ONNX files, look at their hashes.

    Raises:
        PredictorError: as in `build_networks`.
    """
    for each in (predictor, predictor.locator):
        if each is None:
            continue
        if each.spec.architecture.name == "onnx":
            for path, facts in each.members.items():
                models.check_weights(path, facts)
        else:
            build_networks(each)


def _groups(spec: PredictorSpec) -> list[list[int]]:
    """Return the indices, among the auxiliary classes, of those that stay one class."""
    return [[spec.auxiliary.index(part) for part in group] for group in spec.internal.values()]
