"""Where networks and their facts come from: a predictor folder, or a module of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flarekit import postprocess
from flarekit.core.spec import PredictorFolder, PredictorSpec, parse_spec
from flarekit.engine import Networks
from flarekit.segmentation.fingerprint import predictor_sha256
from flarekit.segmentation.predictors import check_trust, find_predictor, networks_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Source:
    """Networks and the facts about them.

    Attributes:
        spec: the facts as they stand.
        networks: gives what an engine needs; the weights are checked then.
        locator: the source of its locator; None where it has none.
        is_stored: whether they are files, that are the same another time.
        folder: that they are in; None where they are a module of one's own.
    """

    spec: PredictorSpec
    networks: Callable[[], Networks]
    locator: Source | None = None
    is_stored: bool = True
    folder: PredictorFolder | None = None

    @property
    def trusted(self) -> bool:
        """Whether what they name may be executed."""
        return self.folder is not None and self.folder.trusted

    @property
    def sha256(self) -> str | None:
        """What tells its networks and facts from all others; None where they are not stored."""
        if not self.is_stored:
            return None
        parts: list[tuple[PredictorSpec, PredictorFolder | None]] = [(self.spec, self.folder)]
        if self.locator is not None:
            parts.append((self.locator.spec, self.locator.folder))
        if self.spec.coarse is not None:
            first = find_predictor(self.spec.coarse.predictor, trust=self.trusted)
            parts.append((first.spec, first))
        own = [
            check_trust(folder)
            for _, folder in parts
            if folder is not None and (folder is self.folder or folder.trusted)
        ]
        return predictor_sha256(
            *(spec for spec, _ in parts), code=[each.sha256() for each in own if each is not None]
        )

    def check(self) -> None:
        """Look whether the weights, those of the locator included, are here and whole.

        Nothing is loaded.

        Raises:
            WeightsMissingError, WeightsHashError: they are not.
            UntrustedError: loading them would execute something, and nobody has said that it may.
        """
        self.networks()
        if self.locator is not None:
            self.locator.check()

    @classmethod
    def of_folder(cls, predictor: PredictorFolder) -> Source:
        """Return the source that a predictor folder is."""
        locator = None
        if predictor.locator is not None:
            networks = partial(networks_of, predictor.locator, within=predictor)
            locator = cls(spec=predictor.locator.spec, networks=networks, folder=predictor.locator)
        networks = partial(networks_of, predictor)
        return cls(spec=predictor.spec, networks=networks, locator=locator, folder=predictor)

    @classmethod
    def of_module(cls, module: nn.Module, facts: PredictorSpec | Mapping[str, Any]) -> Source:
        """Return the source that a module of one's own is; the module itself stays as it is.

        Raises:
            PredictorError: the facts do not hold together.
        """
        spec = facts if isinstance(facts, PredictorSpec) else _facts_of_module(module, facts)
        postprocess.check_rules(spec.rules, [channel.name for channel in spec.channels])
        networks = Networks(
            build=lambda: [copy.deepcopy(module)],
            channels=len(spec.channels),
            identity=f"module {id(module)}",
            half_precisions=spec.half_precisions,
        )
        return cls(spec=spec, networks=lambda: networks, is_stored=False)


def _facts_of_module(module: nn.Module, facts: Mapping[str, Any]) -> PredictorSpec:
    """Add what a module needs no facts about: they are those of files."""
    name = type(module).__name__
    parameters = sum(parameter.numel() for parameter in module.parameters())
    usual = {
        "name": name,
        "title": name,
        "convention": "flare",
        "architecture": {"name": name},
        "weights": {"sha256": "0" * 64, "parameters": max(1, parameters)},
    }
    return parse_spec(usual | dict(facts), source=f"the facts about {name}")
