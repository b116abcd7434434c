"""The list of what an image holds, with licences, as CycloneDX; written inside it as it is built.

    python -m flarekit.images.bill FILE

Python packages are those that `importlib.metadata` finds, Debian's those that dpkg has installed;
the predictors in the image are components as well. Nothing in the list depends on when it is made.
"""

import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flarekit.core.files import write_atomically

_SPEC = "1.5"
_STATUS = Path("/var/lib/dpkg/status")
_LONGEST_LICENCE = 80  # characters; longer fields hold a licence's text
_SPACE = uuid.NAMESPACE_URL
_NOT_STATED = "not stated"


def bill(
    packages: Iterable[Distribution], dpkg_status: str = "", predictors: Iterable[Any] = ()
) -> dict[str, Any]:
    """Return the list as CycloneDX has it.

    Args:
        packages: Python's, as `importlib.metadata.distributions` gives them.
        dpkg_status: text of `/var/lib/dpkg/status`; empty where the system is not Debian's.
        predictors: `PredictorFolder`s.
    """
    components = [_python(), *_pypi(packages), *_debian(dpkg_status)]
    components += [_model(predictor) for predictor in predictors]
    serial = uuid.uuid5(_SPACE, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "flarekit image"}},
        "components": components,
    }


def _python() -> dict[str, Any]:
    return {
        "type": "application",
        "bom-ref": "python",
        "name": platform.python_implementation(),
        "version": platform.python_version(),
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def _pypi(packages: Iterable[Distribution]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for package in packages:
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"] or "").lower()
        if not name:  # a folder that an installation left half removed
            continue
        purl = f"pkg:pypi/{name}@{package.version}"
        found.setdefault(
            name,
            {
                "type": "library",
                "bom-ref": purl,
                "name": package.metadata["Name"],
                "version": package.version,
                "purl": purl,
                **_licences(package),
            },
        )
    return [found[name] for name in sorted(found)]


def _licences(package: Distribution) -> dict[str, Any]:
    """Return what a package says of its licence: an expression, a classifier, or a short field."""
    facts: Any = package.metadata  # a Message
    expression = facts.get("License-Expression")
    if expression:
        return {"licenses": [{"expression": expression.strip()}]}
    classified = [
        line.rpartition("::")[2].strip()
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License ::") and line.count("::") > 1
    ]
    field = (facts.get("License") or "").strip()
    if not classified and field and len(field) <= _LONGEST_LICENCE and "\n" not in field:
        classified = [field]
    if not classified:
        return {"properties": [{"name": "flarekit:licence", "value": _NOT_STATED}]}
    return {"licenses": [{"license": {"name": name}} for name in classified]}


def _debian(status: str) -> Iterator[dict[str, Any]]:
    """Yield Debian's packages; their licences are in files of the image, which are named."""
    for paragraph in status.split("\n\n"):
        facts = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if not line.startswith(" ") and ": " in line
        )
        if "installed" not in facts.get("Status", "").split():
            continue
        name, version = facts["Package"], facts["Version"]
        arch = facts.get("Architecture", "all")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}"
        licence = {"name": "flarekit:licence", "value": f"/usr/share/doc/{name}/copyright"}
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "properties": [licence],
        }


def _model(predictor: Any) -> dict[str, Any]:  # noqa: ANN401 - a PredictorFolder, not imported here
    spec = predictor.spec
    return {
        "type": "machine-learning-model",
        "bom-ref": f"predictor:{spec.name}",
        "name": spec.name,
        "description": spec.title,
        "hashes": [{"alg": "SHA-256", "content": spec.weights.sha256}],
        "licenses": [{"license": {"name": str(spec.provenance.get("licence", _NOT_STATED))}}],
    }


def main() -> None:
    """Write the list of this environment to the file that is named."""
    from flarekit.segmentation.predictors import predictors

    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m flarekit.images.bill FILE")
    status = _STATUS.read_text(encoding="utf-8") if _STATUS.is_file() else ""
    content = json.dumps(bill(distributions(), status, predictors()), indent=1) + "\n"
    write_atomically(Path(sys.argv[1]), content.encode())


if __name__ == "__main__":
    main()
