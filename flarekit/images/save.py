"""`flarekit save`: an image as the file that an organiser, or a cluster, takes."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flarekit.containers import CONVENTION_LABEL, ImageFacts
from flarekit.containers.docker import require_engine
from flarekit.containers.docker_command import DockerError, docker, machine_fix, reason_in
from flarekit.containers.docker_images import image_id, inspect_image
from flarekit.core.errors import OutputError, UsageError
from flarekit.core.files import named_when_whole, sha256_of, write_atomically
from flarekit.images.apptainer import definition
from flarekit.images.run_line import organisers_line
from flarekit.verification.image_checks import flare_name_faults, stem_of

_ENDING, _DEFINITION = ".tar.gz", ".def"
_LARGE_GB = 10.0
_BLOCK = 2**22


SaveFormat = Literal["docker", "apptainer-def"]


@dataclass(frozen=True, kw_only=True)
class SaveRequest:
    """What to save.

    Attributes:
        image: its name.
        path: of the file, `.tar.gz`; of an Apptainer definition `.def`.
        convention: whose naming rules; the image's label where None.
        format: `docker` is the file that organisers take. `apptainer-def` is a definition for
            Apptainer and, beside it, the saved image that it is built from.
    """

    image: str
    path: Path
    convention: str | None = None
    format: SaveFormat = "docker"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was saved, and the line by which the organiser runs it."""

    path: Path
    size_bytes: int
    sha256: str
    warnings: tuple[str, ...]
    run_line: str | None = None


def save(request: SaveRequest, *, say: Callable[[str], None] = lambda _: None) -> Saved:
    """Save an image, named as its organiser wants it; the file is whole or not there.

    FLARE runs `STEM:latest` of `STEM.tar.gz`: the image gets that name too.

    Raises:
        UsageError: a file name that the convention does not take.
        InputError: no such image.
        DockerError: no engine, or it could not save.
        OutputError: the file could not be written.
    """
    ending = _ENDING if request.format == "docker" else _DEFINITION
    if not request.path.name.endswith(ending):
        raise UsageError(f"{request.path}: is not a {ending}", fix=f"name it TEAM{ending}")
    if not request.path.parent.is_dir():
        raise OutputError(f"{request.path.parent}: is not a folder", fix="make it first")
    require_engine()
    facts = inspect_image(request.image)
    if request.format == "apptainer-def":
        return _save_definition(request, facts)
    convention = request.convention or facts.labels.get(CONVENTION_LABEL, "flare")
    name = request.image
    warnings: list[str] = []
    if convention == "flare":
        stem = stem_of(request.path)
        name = f"{stem}:latest"
        faults = flare_name_faults(stem, (name,))
        if faults:
            raise UsageError("; ".join(faults), fix=f"name the file like team-a{_ENDING}")
        if name not in facts.names:
            warnings += _give_name(request.image, name)
            say(f"{request.image} is now also {name}, as the evaluator will call it")
    _write(name, request.path)
    size = request.path.stat().st_size
    if size > _LARGE_GB * 1e9:
        warnings.append(
            f"{size / 1e9:.1f} GB: uploads of this size take hours, and platforms may refuse them; "
            "build with --cpu, or leave caches out"
        )
    return Saved(
        path=request.path,
        size_bytes=size,
        sha256=sha256_of(request.path),
        warnings=tuple(warnings),
        run_line=organisers_line(name, facts, convention),
    )


def _save_definition(request: SaveRequest, facts: ImageFacts) -> Saved:
    """Save the image, and beside it the definition that Apptainer builds from it."""
    archive = request.path.with_name(request.path.name.removesuffix(_DEFINITION) + _ENDING)
    _write(request.image, archive)
    write_atomically(request.path, definition(request.image, facts, archive.name).encode())
    return Saved(
        path=request.path,
        size_bytes=archive.stat().st_size,
        sha256=sha256_of(archive),
        warnings=(f"copy {archive.name} along with it: Apptainer builds from that file",),
    )


def _give_name(image: str, name: str) -> list[str]:
    """Give an image a further name; return a warning where another image loses it by that.

    Raises:
        DockerError: Docker refuses the name.
    """
    owner = image_id(name)
    tagged = docker("image", "tag", image, name)
    if tagged.returncode:
        reason = reason_in(tagged.stderr)
        raise DockerError(
            f"{image} could not be named {name}: {reason}",
            fix=machine_fix(reason) or "tag it by hand",
        )
    if owner is None:
        return []
    short = owner.removeprefix("sha256:")[:12]
    return [
        f"{name} was another image, {short}, which has lost that name to {image}; "
        f"to give it a name again: docker image tag {short} NAME"
    ]


def _write(image: str, path: Path) -> None:
    """Compress what docker saves, as it comes, under a temporary name."""
    from isal import igzip

    with (
        named_when_whole(path) as temporary,
        tempfile.TemporaryFile() as errors,  # a pipe that nobody reads would stop it when full
        igzip.open(temporary, "wb", compresslevel=2) as stream,
    ):
        with subprocess.Popen(
            ["docker", "image", "save", image], stdout=subprocess.PIPE, stderr=errors
        ) as process:
            if process.stdout is not None:
                shutil.copyfileobj(process.stdout, stream, _BLOCK)
        if process.returncode:
            errors.seek(0)
            reason = reason_in(errors.read().decode(errors="replace"))
            raise DockerError(
                f"docker could not save {image}: {reason}",
                fix=machine_fix(reason) or "see docker image ls",
            )
