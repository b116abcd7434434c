"""Archives that somebody else made (tar, compressed or not, and zip), unpacked safely.

Nothing lands outside the folder, no link is ever made, and no more is unpacked than was allowed.
"""

import errno
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path
from typing import Self

from flarekit.core.archive_members import AGAIN, Member, UnpackLimits, members_of
from flarekit.core.errors import InputError, OutputError
from flarekit.core.files import make_folder
from flarekit.core.names import path_within
from flarekit.core.unpacked_names import ROOT_PREFIX, place_of

_CHUNK = 1 << 20


def is_archive(path: Path) -> bool:
    """Return whether a file is one that `unpack_archive` reads, by its content."""
    try:
        with path.open("rb") as stream:
            if stream.read(1) == b"\0":  # a tar that has ended already: a file of zeros is one
                return False
        return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
    except (OSError, EOFError, ValueError, zlib.error, LZMAError):
        return False


def unpack_archive(
    path: Path, folder: Path, limits: UnpackLimits | None = None
) -> tuple[Path, ...]:
    """Unpack a tar (plain, gzip, xz, bzip2) or a zip into a new folder.

    It becomes visible only once it is whole. Files get the modes a new file has. A link to another
    file of the archive becomes a copy of that; devices and pipes are refused.

    Args:
        path: of the archive; what it is, its content tells.
        folder: which is made; it must not be there, or be empty.
        limits: what it may hold at most.

    Returns:
        The files, sorted.

    Raises:
        InputError: it is not such an archive or is damaged, a member leads out of the folder, or
            it holds more than the limits allow; nothing is left behind.
        OutputError: the folder cannot be made or written, or holds something.
    """
    limits = limits or UnpackLimits()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already", fix="name a folder that is not there")
    make_folder(folder.parent)
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        with members_of(path, limits) as members:
            files = _Unpacking(path, scratch, limits).run(members)
        scratch.chmod(0o755)
        scratch.replace(folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError) as error:
        raise InputError(f"{path}: is damaged: {error or 'it ends early'}", fix=AGAIN) from error
    except (RuntimeError, NotImplementedError, ValueError) as error:  # encrypted; unknown method
        if "encrypted" in str(error):
            raise InputError(
                f"{path}: is encrypted", fix="unpack it with its password, and name the folder"
            ) from error
        raise InputError(f"{path}: cannot be unpacked: {error}", fix=AGAIN) from error
    except OSError as error:
        raise _os_error(path, folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tuple(sorted(folder / each.relative_to(scratch) for each in files))


class Unpacked:
    """What archives hold, in a temporary folder of its own; a context manager.

    All archives together may hold what the limits allow. The folder of each repeats its path, so
    that messages can name its files by it.
    """

    def __init__(self, limits: UnpackLimits | None = None) -> None:
        self._limits = limits or UnpackLimits()
        self._root: Path | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, path: Path) -> Path:
        """Unpack an archive and return the folder with its files.

        Raises:
            InputError: see `unpack_archive`.
            OutputError: the temporary folder cannot be written, or has no space for it.
        """
        self._count += 1
        try:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix=ROOT_PREFIX))
            folder = place_of(path, self._root, self._count)
            files = unpack_archive(path, folder, self._limits)
        except (OSError, OutputError) as error:
            raise _no_temporary(path, error) from error
        self._limits = UnpackLimits(
            most_bytes=self._limits.most_bytes - sum(file.stat().st_size for file in files),
            most_files=self._limits.most_files - len(files),
        )
        return folder

    def close(self) -> None:
        """Remove the temporary folder and everything in it."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None


def _no_temporary(path: Path, error: OSError | OutputError) -> OutputError:
    cause = error if isinstance(error, OSError) else error.__cause__
    why = cause.strerror if isinstance(cause, OSError) else str(error)
    try:
        where = f" in {tempfile.gettempdir()}"
    except OSError:  # there is none
        where = ""
    return OutputError(
        f"{path}: cannot be unpacked into a temporary folder{where}: {why}",
        fix="set TMPDIR to a folder that can be written and has space, or unpack the archive",
    )


def _os_error(path: Path, folder: Path, error: OSError) -> InputError | OutputError:
    """Tell a damaged or missing archive from a folder that cannot be written."""
    is_of_archive = error.filename is not None and Path(error.filename) == path
    if error.errno in (None, errno.EINVAL) or is_of_archive:  # EINVAL: it points before its start
        return InputError(f"{path}: cannot be read: {error.strerror or error}", fix=AGAIN)
    return OutputError(
        f"{path}: cannot be unpacked into {folder}: {error.strerror}",
        fix="name a folder with space that can be written",
    )


class _Unpacking:
    """Writes the members of one archive below a folder that is its own."""

    def __init__(self, archive: Path, root: Path, limits: UnpackLimits) -> None:
        self._archive, self._root, self._limits = archive, root, limits
        self._files: set[Path] = set()
        self._links: list[tuple[Path, str]] = []
        self._bytes = 0
        self._count = 0

    def run(self, members: Iterator[Member]) -> set[Path]:
        """Write everything and return the files."""
        for member in members:
            self._count += 1
            if self._count > self._limits.most_files:
                raise self._refused(f"holds more than {self._limits.most_files} files")
            if member.name.strip("/.") == "" and member.is_folder:
                continue  # the archive's own top folder
            target = path_within(self._root, member.name, source=self._archive)
            if member.is_folder:
                self._make(target)
            elif member.link is not None:
                self._links.append((target, member.link))
            elif member.is_file:
                self._write(target, member)
            else:
                raise self._refused(f"holds {member.name!r}, which is neither a file nor a folder")
        for target, link in self._links:
            self._copy(target, link)
        return self._files

    def _write(self, target: Path, member: Member) -> None:
        if target in self._files:
            raise self._refused(f"holds {member.name!r} twice, and only one of them could stay")
        self._expect(member.size)
        content = member.open()
        if content is None:
            raise self._refused(f"holds {member.name!r} in an unknown way")
        self._make(target.parent)
        if target.is_dir():
            raise self._refused(f"holds {member.name!r} as a file and as a folder")
        with content, target.open("wb") as stream:
            while piece := content.read(_CHUNK):
                self._bytes += len(piece)
                self._expect(0)
                stream.write(piece)
        self._files.add(target)

    def _copy(self, target: Path, link: str) -> None:
        """Copy what a link of the archive points to, so that no link is ever made."""
        original = path_within(self._root, link, source=self._archive)
        if original not in self._files:
            raise self._refused(f"holds a link to {link!r}, which is not a file of it")
        self._expect(original.stat().st_size)
        self._make(target.parent)
        if target != original:
            shutil.copyfile(original, target)
            self._bytes += original.stat().st_size
            self._files.add(target)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            name = folder.relative_to(self._root)
            raise self._refused(f"holds '{name}' as a file and as a folder") from error

    def _expect(self, size: int) -> None:
        if self._bytes + size > self._limits.most_bytes:
            raise self._refused(f"unpacks to more than {self._limits.most_bytes} bytes")

    def _refused(self, fault: str) -> InputError:
        return InputError(f"{self._archive}: {fault}", fix="do not trust it, or " + AGAIN)
