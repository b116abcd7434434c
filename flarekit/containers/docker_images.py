"""Images in the Docker engine: their facts, and saved ones loaded without moving any name."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from flarekit.containers import ImageFacts
from flarekit.containers.docker_command import docker, machine_fix, reason_in
from flarekit.containers.saved_image import Archive, facts_of
from flarekit.core.errors import InputError

_LOG = logging.getLogger(__name__)


def inspect_image(name: str) -> ImageFacts:
    """Return the facts of an image that the engine has.

    Raises:
        InputError: it has no such image.
    """
    config = inspected(name, fix="build it with flarekit build, or name one of docker image ls")
    return facts_of(config, tuple(config.get("RepoTags") or ()), int(config["Size"]))


def inspected(name: str, *, fix: str) -> dict[str, Any]:
    """Return what the engine says of an image that it has.

    Args:
        name: of the image.
        fix: what to do where it has none.

    Raises:
        InputError: it has no such image.
    """
    found = docker("image", "inspect", name)
    if found.returncode:
        reason = reason_in(found.stderr)
        if "no such image" in reason.lower():
            reason = "is not in this Docker engine"
        raise InputError(f"image {name}: {reason}", fix=machine_fix(reason) or fix)
    facts: dict[str, Any] = json.loads(found.stdout)[0]
    return facts


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A saved tar's image in the engine.

    Attributes:
        reference: its name; its id where it has none, or another image has it.
        is_new: whether the engine did not have it before.
    """

    reference: str
    is_new: bool


def load_image(archive: Archive) -> Loaded:
    """Load a saved tar's first image into the engine; no name is taken from another image.

    `docker load` gives every name in the tar to the tar's images, whichever images had them. Names
    that others had are given back, with a warning, and the image goes by its id.

    Raises:
        InputError: the engine refuses it.
    """
    path = archive.path
    if not archive.images:
        raise InputError(f"{path}: holds no image", fix="save the image again")
    names = [name for image in archive.images for name in image.names]
    owners = {name: image_id(name) for name in names}
    before = set(docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.split())
    loaded = docker("image", "load", "--input", str(path))
    said = [line for line in loaded.stdout.splitlines() if line.startswith("Loaded image")]
    if loaded.returncode or not said:
        reason = reason_in(loaded.stderr or loaded.stdout)
        raise InputError(
            f"{path}: docker load refuses it: {reason}",
            fix=machine_fix(reason) or "save the image again",
        )
    own = archive.images[0].names
    reference = own[0] if own else said[0].partition(": ")[2].strip()
    found = image_id(reference)
    if found is None:
        raise InputError(f"{path}: docker load did not load it", fix="save the image again")
    for name, owner in owners.items():
        if owner is None or owner == image_id(name):
            continue
        if docker("image", "tag", owner, name).returncode:
            _LOG.warning("%s named image %s, which is gone; it now names the tar's", name, owner)
            continue
        _LOG.warning(
            "%s keeps naming another image here (%s); the image in %s is used by its id",
            name,
            owner.removeprefix("sha256:")[:12],
            path.name,
        )
        reference = found if name in own else reference
    return Loaded(reference=reference, is_new=found not in before)


def image_id(name: str) -> str | None:
    """Return the id of the engine's image of a name; None where it has none."""
    found = docker("image", "inspect", "--format", "{{.Id}}", name)
    return None if found.returncode else found.stdout.strip()
