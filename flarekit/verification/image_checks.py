"""What can be said of an image without running it."""

import re
from pathlib import Path

from flarekit.containers import FACTS_LABEL
from flarekit.containers.saved_image import ENDINGS, read_archive
from flarekit.verification.check import PASS, Finding, check, fail, verdict_of, warn
from flarekit.verification.trials import ImageUnderTest

_LARGE_GB = 10.0
_ROOT = ("", "0", "root")


@check(fix="save one image: flarekit save IMAGE -o TEAM.tar.gz", runs=False)
def one_image(image: ImageUnderTest) -> Finding:
    """The saved tar holds exactly one image."""
    if image.sandbox.archive is None:
        return PASS  # the engine gives one image for one name
    images = read_archive(image.sandbox.archive).images
    if len(images) != 1:
        names = ", ".join(name for image in images for name in image.names)
        return fail(f"the tar holds {len(images)} images ({names})")
    return PASS


@check(fix="build with docker build --platform linux/amd64", runs=False)
def amd64(image: ImageUnderTest) -> Finding:
    """The image is for linux/amd64."""
    facts = image.facts
    if (facts.system, facts.architecture) != ("linux", "amd64"):
        return fail(f"it is for {facts.system}/{facts.architecture}")
    return PASS


@check(
    fix="leave build tools, caches and other predictors out; see the targets cpu and gc-cpu",
    runs=False,
)
def size(image: ImageUnderTest) -> Finding:
    """The image is below 10 GB, so that it uploads and pulls in reasonable time."""
    size_gb = image.facts.size_bytes / 1e9
    if size_gb > _LARGE_GB:
        return warn(f"{size_gb:.1f} GB unpacked")
    return PASS


@check(fix="add USER 1000:1000 to the last stage of the Dockerfile", runs=False)
def not_root(image: ImageUnderTest) -> Finding:
    """USER is set, and not root."""
    user = image.facts.user.partition(":")[0]
    return fail(f"USER is {user or 'not set'}") if user in _ROOT else PASS


@check(fix="remove USER from the last stage of the Dockerfile, or build for FLARE", runs=False)
def root(image: ImageUnderTest) -> Finding:
    """The image runs as root, which the evaluator's folders need."""
    user = image.facts.user.partition(":")[0]
    return PASS if user in _ROOT else fail(f"USER is {user}")


@check(fix='add CMD ["flarekit", "job"] or your own to the Dockerfile', runs=False)
def starts_something(image: ImageUnderTest) -> Finding:
    """ENTRYPOINT or CMD says what runs."""
    if not image.facts.command and not image.facts.entrypoint:
        return fail("neither ENTRYPOINT nor CMD is set")
    return PASS


def flare_name_faults(stem: str, names: tuple[str, ...]) -> list[str]:
    """Return what would fail at FLARE's evaluator in a saved tar.

    Args:
        stem: of the file, without `.tar.gz`.
        names: of the image in it, with tags.
    """
    faults = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stem):
        faults.append(f"{stem!r} is not a team name: lower case, digits, - and _, no dots")
    if f"{stem}:latest" not in names:
        held_names = ", ".join(names) or "none"
        faults.append(f"the evaluator runs {stem}:latest, the image is named {held_names}")
    return faults


@check(fix="flarekit save IMAGE -o TEAM.tar.gz names both", runs=False)
def team_name(image: ImageUnderTest) -> Finding:
    """The tar is TEAM.tar.gz, and the image in it TEAM:latest."""
    names = image.facts.names
    if image.sandbox.archive is not None:
        archive = image.sandbox.archive
        faults = flare_name_faults(stem_of(archive), names)
        if not faults and not archive.name.endswith(".tar.gz"):
            return warn(f"{archive.name} is not a .tar.gz, which the evaluator looks for")
        return verdict_of(faults)
    teams = [name.rpartition("/")[2].partition(":")[0] for name in names]
    faults = [fault for team in teams[:1] for fault in flare_name_faults(team, (f"{team}:latest",))]
    if not faults and not any(name.endswith(":latest") for name in names):
        return warn(f"the image is named {', '.join(names)}; flarekit save names it TEAM:latest")
    return verdict_of(faults)


def stem_of(path: Path) -> str:
    """Return the name of a saved tar without its ending: `.tar`, `.tar.gz` and the like."""
    endings = [ending for ending in ENDINGS if path.name.endswith(ending)]
    return path.name.removesuffix(max(endings, key=len, default=""))


@check(
    fix='LABEL flarekit.facts=\'{"values": [1, 2], "settings": {}}\', as flarekit build sets it',
    runs=False,
)
def facts_label(image: ImageUnderTest) -> Finding:
    """The label flarekit.facts, where there is one, states mask values and settings."""
    faults = image.task.label_faults
    if not faults:
        return PASS
    return warn(f"{FACTS_LABEL} {'; '.join(faults[:3])}; that is left aside")
