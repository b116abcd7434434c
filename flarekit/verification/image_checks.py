"""What can be said of an image without running it."""

from __future__ import annotations

import re
from pathlib import Path

from flarekit.containers import FACTS_LABEL
from flarekit.containers.saved_image import ENDINGS, read_archive
from flarekit.verification.check import PASS, Check, Finding, fail, held, warn
from flarekit.verification.trials import ImageUnderTest

_LARGE_GB = 10.0
_ROOT = ("", "0", "root")


def _one_image(image: ImageUnderTest) -> Finding:
    if image.sandbox.archive is None:
        return PASS  # the engine gives one image for one name
    images = read_archive(image.sandbox.archive).images
    if len(images) != 1:
        names = ", ".join(name for image in images for name in image.names)
        return fail(f"the tar holds {len(images)} images ({names})")
    return PASS


def _amd64(image: ImageUnderTest) -> Finding:
    facts = image.facts
    if (facts.system, facts.architecture) != ("linux", "amd64"):
        return fail(f"it is for {facts.system}/{facts.architecture}")
    return PASS


def _size(image: ImageUnderTest) -> Finding:
    size_gb = image.facts.size_bytes / 1e9
    if size_gb > _LARGE_GB:
        return warn(f"{size_gb:.1f} GB unpacked")
    return PASS


def _not_root(image: ImageUnderTest) -> Finding:
    user = image.facts.user.partition(":")[0]
    return fail(f"USER is {user or 'not set'}") if user in _ROOT else PASS


def _root(image: ImageUnderTest) -> Finding:
    user = image.facts.user.partition(":")[0]
    return PASS if user in _ROOT else fail(f"USER is {user}")


def _starts_something(image: ImageUnderTest) -> Finding:
    if not image.facts.command and not image.facts.entrypoint:
        return fail("neither ENTRYPOINT nor CMD is set")
    return PASS


def flare_name_faults(stem: str, names: tuple[str, ...]) -> list[str]:
    """Return what FLARE's evaluator would stumble over in a saved tar.

    Args:
        stem: of the file, without `.tar.gz`.
        names: of the image in it, with tags.
    """
    faults = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stem):
        faults.append(f"{stem!r} is no team name: lower case, digits, - and _, no dots")
    if f"{stem}:latest" not in names:
        held_names = ", ".join(names) or "none"
        faults.append(f"the evaluator runs {stem}:latest, the image is named {held_names}")
    return faults


def _flare_name(image: ImageUnderTest) -> Finding:
    names = image.facts.names
    if image.sandbox.archive is not None:
        archive = image.sandbox.archive
        faults = flare_name_faults(stem_of(archive), names)
        if not faults and not archive.name.endswith(".tar.gz"):
            return warn(f"{archive.name} is not a .tar.gz, which the evaluator looks for")
        return held(faults)
    teams = [name.rpartition("/")[2].partition(":")[0] for name in names]
    faults = [fault for team in teams[:1] for fault in flare_name_faults(team, (f"{team}:latest",))]
    if not faults and not any(name.endswith(":latest") for name in names):
        return warn(f"the image is named {', '.join(names)}; flarekit save names it TEAM:latest")
    return held(faults)


def stem_of(path: Path) -> str:
    """Return the name of a saved tar without its ending: `.tar`, `.tar.gz` and the like."""
    endings = [ending for ending in ENDINGS if path.name.endswith(ending)]
    return path.name.removesuffix(max(endings, key=len, default=""))


def _facts_label(image: ImageUnderTest) -> Finding:
    faults = image.task.label_faults
    if not faults:
        return PASS
    return warn(f"{FACTS_LABEL} {'; '.join(faults[:3])}; that is left aside")


FACTS = Check(
    name="facts_label",
    asserts=f"the label {FACTS_LABEL}, where there is one, says what masks hold and settings",
    fix='LABEL flarekit.facts=\'{"values": [1, 2], "settings": {}}\', as flarekit build sets it',
    look=_facts_label,
    runs=False,
)
ONE_IMAGE = Check(
    name="one_image",
    asserts="the saved tar holds exactly one image",
    fix="save one image: flarekit save IMAGE -o TEAM.tar.gz",
    look=_one_image,
    runs=False,
)
AMD64 = Check(
    name="amd64",
    asserts="the image is for linux/amd64",
    fix="build with docker build --platform linux/amd64",
    look=_amd64,
    runs=False,
)
SIZE = Check(
    name="size",
    asserts=f"the image is below {_LARGE_GB:.0f} GB, which uploads and pulls in reasonable time",
    fix="leave build tools, caches and other predictors out; see the targets cpu and gc-cpu",
    look=_size,
    runs=False,
)
NOT_ROOT = Check(
    name="not_root",
    asserts="USER is set, and not root",
    fix="add USER 1000:1000 to the last stage of the Dockerfile",
    look=_not_root,
    runs=False,
)
ROOT = Check(
    name="root",
    asserts="the image runs as root, which the evaluator's folders need",
    fix="remove USER from the last stage of the Dockerfile, or build for FLARE",
    look=_root,
    runs=False,
)
STARTS = Check(
    name="starts_something",
    asserts="ENTRYPOINT or CMD says what runs",
    fix='add CMD ["flarekit", "job"] or your own to the Dockerfile',
    look=_starts_something,
    runs=False,
)
FLARE_NAME = Check(
    name="team_name",
    asserts="the tar is TEAM.tar.gz, and the image in it TEAM:latest",
    fix="flarekit save IMAGE -o TEAM.tar.gz names both",
    look=_flare_name,
    runs=False,
)
