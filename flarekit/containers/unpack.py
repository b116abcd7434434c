"""The layers of a saved tar, put on top of each other as a root file system."""

import errno
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flarekit.containers.saved_image import Archive, decompressed
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.errors import InputError, OutputError

_CHUNK = 2**20
IMAGE_LIMITS = UnpackLimits(most_bytes=100 << 30, most_files=2_000_000)
_MOST_LINKS = 40  # as many as the kernel follows
_HERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EINVAL)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_SAVE_AGAIN = "the file is damaged or was not made by docker save; save the image again"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or folder as the image has it, which may differ from what could be made here."""

    uid: int
    gid: int
    mode: int
    modified_s: float


def unpack(
    archive: Archive, root: Path, *, limits: UnpackLimits | None = None
) -> dict[Path, Entry]:
    """Put the layers of an archive's first image on top of each other.

    Deletions that a layer records (whiteouts) take away what lower layers hold, never what the
    same layer adds; links are followed inside the new root alone, as the kernel does after a
    chroot; devices are left out. Modes and times are kept, owners too where this process is root;
    without root everything belongs to the one who unpacks, who may always read and write it.
    Extended attributes are not kept.

    Source: the OCI image specification, "Image Layer Filesystem Changeset".

    Args:
        archive: as read.
        root: a folder that is made, or is there and empty.
        limits: what its layers may hold altogether; 100 GiB and 2,000,000 files where None.

    Returns:
        What the image says of its files and folders, by their paths from the root on; links are
        not among them.

    Raises:
        InputError: a layer is damaged, compressed in a way that is not read here, or has a path
            that leads out of the root; or the image unpacks to more than it may.
        OutputError: the root cannot be written.
    """
    if not archive.layers:
        raise InputError(f"{archive.path}: holds no image", fix=_SAVE_AGAIN)
    try:
        root.mkdir(parents=True, exist_ok=True)
        tree = _Tree(root, limits or IMAGE_LIMITS)
        most_bytes = (limits or IMAGE_LIMITS).most_bytes
        with (
            _seekable(archive.path, root.parent, most_bytes) as stream,
            tarfile.open(fileobj=stream) as tar,
        ):
            members = {_clean(member.name): member for member in tar}
            for name in archive.layers[0]:
                with _layer(tar, members, name) as layer:
                    tree.add(layer)
        return tree.finished()
    except InputError as error:
        raise InputError(f"{archive.path}: {error.message}", fix=error.fix) from error
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno in _HERE:
            raise OutputError(
                f"{root}: {archive.path} cannot be unpacked here: {error.strerror}",
                fix="name a folder with space that may be written, on a file system with owners",
            ) from error
        raise InputError(f"{archive.path}: cannot be unpacked: {error}", fix=_SAVE_AGAIN) from error


def inside(root: Path, path: str, *, follow: bool = True) -> Path:
    """Return where a path of a root file system is here, links followed as they are inside.

    Args:
        root: where `/` is here.
        path: absolute, or from the root on; need not exist.
        follow: whether the last part, too, is followed where it is a link.

    Raises:
        InputError: its links go in circles.
    """
    place: list[str] = []
    ahead = _parts(path)[::-1]
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place[-1:] = []
            continue
        here = root.joinpath(*place, part)
        if not (ahead or follow) or not here.is_symlink():
            place.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise InputError(f"{path}: its symbolic links go in circles", fix="correct the image")
        target = str(here.readlink())
        if target.startswith("/"):
            place.clear()
        ahead += _parts(target)[::-1]
    return root.joinpath(*place)


class _Tree:
    """A root file system that grows by layers."""

    def __init__(self, root: Path, limits: UnpackLimits) -> None:
        self._root, self._limits = root, limits
        self._bytes = self._count = 0
        self._owners = os.geteuid() == 0
        self._entries: dict[Path, Entry] = {}
        self._parents: dict[str, Path] = {}
        self._made: set[Path] = set()

    def add(self, layer: tarfile.TarFile) -> None:
        """Unpack one more layer over those unpacked so far."""
        self._made.clear()
        for member in layer:
            self._expect(member)
            folder, _, base = _checked(member.name).rpartition("/")
            parent = self._parent(folder)
            if base == _OPAQUE:
                for child in list(parent.iterdir()):
                    self._take_away(child)
            elif base.startswith(_WHITEOUT):
                hidden = base.removeprefix(_WHITEOUT)
                if hidden in ("", ".", ".."):
                    raise InputError(f"a layer deletes {member.name!r}", fix=_SAVE_AGAIN)
                if not hidden.startswith(_WHITEOUT):
                    self._take_away(parent / hidden)
            elif not member.ischr() and not member.isblk():
                self._put(layer, member, parent / base if base else self._root)

    def _expect(self, member: tarfile.TarInfo) -> None:
        """Count a member and its size, and refuse an image beyond the limits."""
        self._count += 1
        self._bytes += max(0, member.size)
        if self._count > self._limits.most_files or self._bytes > self._limits.most_bytes:
            raise InputError(
                f"its layers hold more than {self._limits.most_bytes >> 30} GiB or "
                f"{self._limits.most_files} files",
                fix="do not trust it, or build the image smaller",
            )

    def finished(self) -> dict[Path, Entry]:
        """Give the folders their modes and times, which writing into them would change."""
        for path in sorted(self._entries, key=lambda path: len(path.parts), reverse=True):
            if path.is_dir():
                entry = self._entries[path]
                path.chmod(entry.mode if self._owners else entry.mode | 0o700)
                os.utime(path, (entry.modified_s, entry.modified_s))
        return {path.relative_to(self._root): entry for path, entry in self._entries.items()}

    def _parent(self, name: str) -> Path:
        """Return where a folder is, made where no layer names it."""
        if name not in self._parents:
            folder = inside(self._root, name)
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o755)
            self._parents[name] = folder
        return self._parents[name]

    def _put(self, layer: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        is_folder = target.is_dir() and not target.is_symlink()
        if not (member.isdir() and is_folder) and os.path.lexists(target):
            self._take_away(target, whatever=True)
        self._made.add(target)
        if member.islnk():
            self._link(member, target)
            return
        if member.isdir():
            target.mkdir(exist_ok=True)
        elif member.issym():
            self._parents.clear()
            target.symlink_to(member.linkname)
        elif member.isfifo():
            os.mkfifo(target)
        else:
            _write(layer.extractfile(member), target)
        if self._owners:
            os.chown(target, member.uid, member.gid, follow_symlinks=False)
        if member.issym():
            os.utime(target, (member.mtime, member.mtime), follow_symlinks=False)
            return
        mode = stat.S_IMODE(member.mode)
        self._entries[target] = Entry(
            uid=member.uid, gid=member.gid, mode=mode, modified_s=member.mtime
        )
        if member.isdir():
            target.chmod(0o700)  # until the last layer is on it
        else:
            target.chmod(mode if self._owners else mode | 0o600)
        os.utime(target, (member.mtime, member.mtime))

    def _link(self, member: tarfile.TarInfo, target: Path) -> None:
        original = inside(self._root, _checked(member.linkname), follow=False)
        os.link(original, target, follow_symlinks=False)
        if original in self._entries:
            self._entries[target] = self._entries[original]

    def _take_away(self, target: Path, *, whatever: bool = False) -> None:
        """Remove what lower layers put there; what this layer put, too, where `whatever`."""
        self._parents.clear()
        if target.is_dir() and not target.is_symlink():
            for child in list(target.iterdir()):
                self._take_away(child, whatever=whatever)
            if (whatever or target not in self._made) and not any(target.iterdir()):
                target.rmdir()
                self._entries.pop(target, None)
        elif whatever or target not in self._made:
            target.unlink(missing_ok=True)
            self._entries.pop(target, None)


def _write(content: IO[bytes] | None, target: Path) -> None:
    if content is None:
        raise InputError(f"{target.name}: a layer holds it in an unknown way", fix=_SAVE_AGAIN)
    with target.open("xb") as stream:
        shutil.copyfileobj(content, stream, _CHUNK)


@contextmanager
def _seekable(path: Path, scratch: Path, most_bytes: int) -> Iterator[IO[bytes]]:
    """Open a saved tar so that its members can be read in any order."""
    with path.open("rb") as raw, decompressed(raw) as stream:
        if stream is raw:
            yield raw
            return
        with tempfile.TemporaryFile(dir=scratch) as whole:
            while piece := stream.read(_CHUNK):
                whole.write(piece)
                if whole.tell() > most_bytes:
                    raise InputError(
                        f"unpacks to more than {most_bytes >> 30} GiB",
                        fix="do not trust it, or build the image smaller",
                    )
            whole.seek(0)
            yield whole


@contextmanager
def _layer(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str
) -> Iterator[tarfile.TarFile]:
    """Open one layer, compressed or not."""
    member = members.get(_clean(name))
    while member is not None and member.issym():  # docker stores a layer that two images share once
        folder = posixpath.dirname(_clean(member.name))
        member = members.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
    blob = None if member is None else tar.extractfile(member)
    if blob is None:
        raise InputError(f"has no layer {name}", fix=_SAVE_AGAIN)
    with ExitStack() as stack:
        try:
            plain = stack.enter_context(decompressed(blob))
        except InputError as error:
            raise InputError(f"layer {name} {error.message}", fix=error.fix) from error
        yield stack.enter_context(_stream(plain))


def _stream(content: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=content, mode="r|", bufsize=_CHUNK)


def _clean(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _checked(name: str) -> str:
    """Return a layer's path as names joined by slashes; empty for the root itself."""
    parts = _parts(name)
    if ".." in parts:
        raise InputError(f"a layer holds {name!r}, which leads out of it", fix=_SAVE_AGAIN)
    return "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
