"""Images as files: what `docker save` writes, read without an engine."""

import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flarekit.containers import ImageFacts
from flarekit.core.archive_members import decompressed_as
from flarekit.core.errors import InputError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")
_KINDS, _ZSTD = {b"\x1f\x8b": "gz", b"\xfd7zXZ": "xz", b"BZh": "bz2"}, b"\x28\xb5\x2f\xfd"
_LONGEST_MAGIC = 5
_MOST_MEMBERS, _MOST_JSON_BYTES = 1_000_000, 2**26


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
    """Read what a saved tar, compressed in any way that Docker loads, says about its images.

    Raises:
        InputError: it is missing or damaged, or not what `docker save` writes.
    """
    fix = "make it with: flarekit save IMAGE -o TEAM.tar.gz"
    try:
        with open_archive(path) as tar:
            sizes, documents = _documents(tar)
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: is not a readable tar: {error}", fix=fix) from error
    manifest = documents.get("manifest.json")
    if not isinstance(manifest, list) or not all(isinstance(entry, dict) for entry in manifest):
        raise InputError(f"{path}: has no manifest.json, so it is not a saved image", fix=fix)
    images, layers = [], []
    for entry in manifest:
        config = documents.get(str(entry.get("Config")))
        stack = _words(entry.get("Layers"))
        if not isinstance(config, dict) or any(layer not in sizes for layer in stack):
            raise InputError(f"{path}: lacks parts that its manifest names", fix=fix)
        size = sum(sizes[layer] for layer in stack)
        images.append(facts_of(config, _words(entry.get("RepoTags")), size))
        layers.append(stack)
    return Archive(path=path, images=tuple(images), layers=tuple(layers))


@contextmanager
def open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a saved tar as a stream, compressed or not.

    Raises:
        InputError: it is compressed in a way that cannot be read here.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        try:
            stream = stack.enter_context(decompressed(raw))
        except InputError as error:
            raise InputError(f"{path}: {error.message}", fix=error.fix) from error
        yield stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))


@contextmanager
def decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the plain content of a stream that can go back to its start, told by its first bytes.

    Raises:
        InputError: it is zstd, which Python does not read; the message begins with "is".
    """
    magic = raw.read(_LONGEST_MAGIC)
    raw.seek(0)
    if magic.startswith(_ZSTD):
        raise InputError(
            "is compressed with zstd, which is not read here",
            fix="save the image with an engine that writes gzip or plain layers, or use Docker; "
            "zstd -d unpacks a whole tar",
        )
    kind = next((kind for mark, kind in _KINDS.items() if magic.startswith(mark)), "")
    with decompressed_as(raw, kind) as stream:
        yield stream


def facts_of(config: dict[str, Any], names: tuple[str, ...], size_bytes: int) -> ImageFacts:
    """Return the facts in an image's config."""
    run = config.get("config") or config.get("Config")
    run = run if isinstance(run, dict) else {}
    variables = dict(entry.partition("=")[::2] for entry in _words(run.get("Env")))
    labels = run.get("Labels")
    return ImageFacts(
        names=names,
        architecture=config.get("architecture") or config.get("Architecture") or "",
        system=config.get("os") or config.get("Os") or "",
        user=str(run.get("User") or ""),
        entrypoint=_words(run.get("Entrypoint")),
        command=_words(run.get("Cmd")),
        working_dir=str(run.get("WorkingDir") or "/"),
        variables=variables,
        labels={k: str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        size_bytes=size_bytes,
    )


def _words(value: object) -> tuple[str, ...]:
    """Return a list of words; a single one may stand without a list around it."""
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    return (value,) if isinstance(value, str) else ()


def _documents(tar: tarfile.TarFile) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the size of every member, and the JSON of those that hold some."""
    sizes: dict[str, int] = {}
    documents: dict[str, Any] = {}
    links: dict[str, str] = {}
    told = 0
    for count, member in enumerate(tar):
        if count > _MOST_MEMBERS or told > _MOST_JSON_BYTES:
            raise tarfile.TarError("it holds more files than an image of any use")
        name = member.name.removeprefix("./")
        sizes[name] = member.size
        if member.issym():  # docker stores a layer that two images share once
            target = Path(name).parent / member.linkname
            links[name] = _normal(target)
        elif member.isfile() and member.size < 2**22:
            stream = tar.extractfile(member)
            content = b"" if stream is None else stream.read()
            if content[:1] in (b"{", b"["):
                told += len(content)
                try:
                    documents[name] = json.loads(content)
                except (ValueError, RecursionError):
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
