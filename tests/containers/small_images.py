"""Saved images of a few files, made without an engine, in the legacy and the OCI layout."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path

_PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}


def entry(name, content=None, *, kind=tarfile.REGTYPE, target="", mode=0o644, uid=0, gid=0, time=9):
    """Return a member of a layer."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.mtime = kind, target, mode, time
    member.uid, member.gid = uid, gid
    member.size = len(content or b"")
    return member, content


def folder(name, **facts):
    return entry(name, kind=tarfile.DIRTYPE, **{"mode": 0o755, **facts})


def symlink(name, target):
    return entry(name, kind=tarfile.SYMTYPE, target=target, mode=0o777)


def hardlink(name, target):
    return entry(name, kind=tarfile.LNKTYPE, target=target)


def device(name):
    return entry(name, kind=tarfile.CHRTYPE)


def fifo(name):
    return entry(name, kind=tarfile.FIFOTYPE)


def layer(*entries) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content) if content is not None else None)
    return stream.getvalue()


def save(
    path: Path, layers, *, config=None, oci=False, pack=None, names=("small:latest",), manifest=1
) -> Path:
    """Write what `docker save` would write.

    Args:
        oci: blobs by their digest, as engines with the containerd store write; else a folder per
            layer.
        pack: compresses a layer.
    """
    config = CONFIG | (config or {})
    digests = [hashlib.sha256(content).hexdigest() for content in layers]
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    blobs = [(pack or bytes)(content) for content in layers]
    if oci:
        blob_names = [f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}" for blob in blobs]
    else:
        blob_names = [f"{digest}/layer.tar" for digest in digests]
    about = json.dumps(config).encode()
    about_name = f"blobs/sha256/{hashlib.sha256(about).hexdigest()}" if oci else "config.json"
    entries = [
        {"Config": about_name, "RepoTags": list(names) or None, "Layers": blob_names}
    ] * manifest
    members = [*reversed(list(zip(blob_names, blobs, strict=True))), (about_name, about)]
    members.append(("manifest.json", json.dumps(entries).encode()))
    whole = layer(*(entry(member, content) for member, content in members))
    path.write_bytes(_PACKERS.get(path.suffix, bytes)(whole))
    return path


def host_programs(*names) -> bytes | None:
    """Return a layer with programs of this machine and their libraries; None where they are not."""
    paths = [shutil.which(name) for name in names]
    if None in paths or shutil.which("ldd") is None:
        return None
    libraries = set()
    for path in paths:
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        libraries |= {word for word in said.split() if word.startswith("/")}
    files = {f"bin/{name}": path for name, path in zip(names, paths, strict=True)}
    files |= {path.lstrip("/"): path for path in libraries}
    return layer(
        folder("./"),
        folder("bin/"),
        folder("tmp/", mode=0o1777),
        *(entry(name, Path(path).read_bytes(), mode=0o755) for name, path in files.items()),
    )
