"""Why `docker build` failed, told by what it said, and the remedy that fits."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from flarekit.containers.docker_command import machine_fix

_STEP = ("step ", " > [")  # how the classic builder, and BuildKit, begin a line that names a step
_UNKNOWN = "these lines end with what failed; the image's Dockerfile has the step that they name"
_REMEDIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["remedies"]


def build_fix(lines: Sequence[str]) -> str:
    """Return what to do about a build that failed.

    Args:
        lines: the last ones that Docker has said; only those of the step that failed count.
    """
    steps = [at for at, line in enumerate(lines) if line.lower().startswith(_STEP)]
    said = "\n".join(lines[steps[-1] :] if steps else lines).lower()
    for remedy in _REMEDIES:
        if any(each in said for each in remedy["words"]):
            return str(remedy["fix"])
    return machine_fix(said) or _UNKNOWN
