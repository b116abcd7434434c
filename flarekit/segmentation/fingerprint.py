"""What tells inputs, predictors and ways of running from all others, by what is in them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flarekit.conventions import Case
from flarekit.core.files import below, sha256_of
from flarekit.core.package import VERSION
from flarekit.core.spec import PredictorSpec
from flarekit.segmentation.options import Options

_DESCRIPTIONS = {
    "name",
    "title",
    "expected",
    "provenance",
}  # that no mask depends on
_PLACES = ("case_id", "mask", "identity")  # what a case is called and where its mask goes
_PLAIN = (str, int, float, bool, type(None))


def input_sha256(case: Case) -> str:
    """Return the SHA-256 of everything that a case is made of, in hexadecimal.

    These are the contents of its channels and of whatever else the convention reads for it, such as
    clicks, and the values that the convention found in the folder, such as spacings. Names and
    places of files do not count. A file that is missing counts as missing. Where the files are on
    another machine it is what their store says of them.
    """
    if case.identity is not None:
        return case.identity
    parts = list(_parts(case, top=True))
    files = [part for part in parts if isinstance(part, Path) and not part.is_dir()]
    if not files:  # nothing but folders, each with the files of one channel
        folders = [part for part in parts if isinstance(part, Path)]
        files = [path for folder in folders for path in below(folder) if path.is_file()]
    said = [part for part in parts if not isinstance(part, Path)]
    digests = [_content(path) for path in files]
    return hashlib.sha256(json.dumps([digests, said]).encode()).hexdigest()


def _parts(value: Any, *, top: bool = False) -> Iterator[Any]:  # noqa: ANN401 - any field of a case
    """Yield the paths and plain values of a case, in order; other objects are left out."""
    if isinstance(value, (Path, *_PLAIN)):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _parts(each)
    elif is_dataclass(value):
        for each in fields(value):
            if not (top and each.name in _PLACES):
                yield from _parts(getattr(value, each.name))


def _content(path: Path) -> str:
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return "missing"


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001 - tell versions apart
    """Return the SHA-256 of a file; many cases may be parts of one."""
    return sha256_of(path)


def predictor_sha256(*specs: PredictorSpec, code: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the facts that masks depend on, those of the weights included.

    Args:
        specs: of a predictor, and of the locator and the first pass that it has.
        code: what tells the code of each class of their own from any other.
    """
    facts: list[Any] = [spec.model_dump(mode="json", exclude=_DESCRIPTIONS) for spec in specs]
    facts += code
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def settings_of(options: Options, convention: str) -> dict[str, Any]:
    """Return how cases are run, as far as masks may depend on it, in plain values.

    Args:
        options: as they were asked for.
        convention: the name of the one that is run.
    """
    kinds = (name.strip().partition(":")[0] for name in options.device.split(","))
    return {
        "flarekit": VERSION,
        "convention": convention,
        "mode": options.mode,
        "engine": options.engine,
        "device": ",".join(dict.fromkeys(kinds)),
        "precision": options.precision,
        "deterministic": options.deterministic,
        "mirroring": options.mirroring,
        "locator": options.locator,
        "labels": None if options.labels is None else sorted(options.labels),
        "time_budget_s": options.time_budget_s,
        "gpu_memory_budget_mib": options.gpu_memory_budget_mib,
        "ram_budget_mib": options.ram_budget_mib,
        **({"probabilities": True} if options.probabilities is not None else {}),
    }
