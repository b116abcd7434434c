"""Images as files: what `docker save` writes, read without an engine."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError
from flarekit.packaging.sandboxes import ImageFacts

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A saved tar.

    Attributes:
        path: of the file.
        images: every image in it.
        layers: of each image: names of its layers in the tar, lowest first.
    """

    path: Path
    images: tuple[ImageFacts, ...]
    layers: tuple[tuple[str, ...], ...]


def read_archive(path: Path) -> Archive:
    """Read what a saved tar, gzip or not, says about its images.

    Raises:
        InputError: it is missing or damaged, or not what `docker save` writes.
    """
    fix = "make it with: flarekit save IMAGE -o TEAM.tar.gz"
    try:
        with open_archive(path) as tar:
            sizes, documents = _documents(tar)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{path}: is not a readable tar: {error}", fix=fix) from error
    manifest = documents.get("manifest.json")
    if not isinstance(manifest, list) or not all(isinstance(entry, dict) for entry in manifest):
        raise InputError(f"{path}: has no manifest.json, so it is not a saved image", fix=fix)
    images, layers = [], []
    for entry in manifest:
        config = documents.get(str(entry.get("Config")))
        stack = tuple(map(str, entry.get("Layers") or ()))
        if not isinstance(config, dict) or any(layer not in sizes for layer in stack):
            raise InputError(f"{path}: lacks parts that its manifest names", fix=fix)
        size = sum(sizes[layer] for layer in stack)
        images.append(facts_of(config, tuple(entry.get("RepoTags") or ()), size))
        layers.append(stack)
    return Archive(path=path, images=tuple(images), layers=tuple(layers))


@contextmanager
def open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a saved tar as a stream, gzip or not."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == _GZIP
        raw.seek(0)
        if is_gzip:
            from isal import igzip

            with igzip.open(raw, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                yield tar
        else:
            with tarfile.open(fileobj=raw, mode="r|") as tar:
                yield tar


def facts_of(config: dict[str, Any], names: tuple[str, ...], size_bytes: int) -> ImageFacts:
    """Return the facts in an image's config."""
    run = config.get("config") or config.get("Config") or {}
    variables = dict(entry.partition("=")[::2] for entry in run.get("Env") or ())
    return ImageFacts(
        names=names,
        architecture=config.get("architecture") or config.get("Architecture") or "",
        system=config.get("os") or config.get("Os") or "",
        user=run.get("User") or "",
        entrypoint=tuple(run.get("Entrypoint") or ()),
        command=tuple(run.get("Cmd") or ()),
        working_dir=run.get("WorkingDir") or "/",
        variables=variables,
        labels=run.get("Labels") or {},
        size_bytes=size_bytes,
    )


def _documents(tar: tarfile.TarFile) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the size of every member, and the JSON of those that hold some."""
    sizes: dict[str, int] = {}
    documents: dict[str, Any] = {}
    links: dict[str, str] = {}
    for member in tar:
        name = member.name.removeprefix("./")
        sizes[name] = member.size
        if member.issym():  # docker stores a layer that two images share once
            target = Path(name).parent / member.linkname
            links[name] = _normal(target)
        elif member.isfile() and member.size < 2**22:
            stream = tar.extractfile(member)
            content = b"" if stream is None else stream.read()
            if content[:1] in (b"{", b"["):
                try:
                    documents[name] = json.loads(content)
                except ValueError:
                    continue
    sizes.update({name: sizes.get(target, 0) for name, target in links.items()})
    return sizes, documents


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts[-1:] = []
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
