"""An image's files, made ready for one run and put back afterwards."""

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from flarekit.containers import SandboxError
from flarekit.containers.accounts import Account
from flarekit.containers.bubblewrap import layers_can_be_mounted
from flarekit.containers.unpack import Entry, inside
from flarekit.core.errors import OutputError


@contextmanager
def staged(
    root: Path,
    *,
    folders: Iterable[str],
    files: Iterable[str],
    linked: Mapping[str, str],
    aside: Path,
) -> Iterator[None]:
    """Put links and mount points into a root for as long as a run lasts.

    Args:
        root: the image's files.
        folders: paths inside that must be folders.
        files: paths inside that must be files.
        linked: paths inside that must be symbolic links, path -> target.
        aside: a folder on the same file system for what the links displace.

    Raises:
        SandboxError: something else is in the way.
    """
    with ExitStack() as undo:
        for number, (path, target) in enumerate(sorted(linked.items())):
            place = inside(root, path, follow=False)
            _make_folder(place.parent, undo)
            if os.path.lexists(place):
                kept = aside / str(number)
                place.rename(kept)
                undo.callback(kept.rename, place)
            place.symlink_to(target)
            undo.callback(place.unlink)
        for path in sorted(folders):
            _make_folder(inside(root, path), undo)
        for path in sorted(files):
            place = inside(root, path)
            _make_folder(place.parent, undo)
            if not place.exists():
                place.touch()
                undo.callback(place.unlink)
        yield


def _make_folder(place: Path, undo: ExitStack) -> None:
    if place.is_dir():
        return
    if os.path.lexists(place):
        raise SandboxError(
            f"{place}: is not a folder, so nothing can be mounted there", fix="correct the image"
        )
    _make_folder(place.parent, undo)
    place.mkdir()
    place.chmod(0o755)
    undo.callback(place.rmdir)


@contextmanager
def seen_as(root: Path, entries: Mapping[Path, Entry], account: Account) -> Iterator[None]:
    """Give files that are all ours the rights that an image's user has on them in Docker.

    Without root, every file belongs to the user who runs, so the kernel asks for the owner's
    rights alone: what the image gives to another user gets those of its group or of the rest.

    Args:
        root: the image's files.
        entries: what the image says of them, by their paths from the root on, none of which goes
            through a link.
        account: the image's user.
    """
    changed = []
    for name in sorted(entries, key=lambda name: len(name.parts)):
        path = root / name
        mode = stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)
        as_user = mode & ~0o700 | _rights(entries[name], account) << 6
        if as_user != mode:
            changed.append((path, mode, as_user))
    try:
        for path, _, as_user in reversed(changed):  # what is in a folder before the folder
            path.chmod(as_user)
        yield
    finally:
        for path, mode, _ in changed:
            path.chmod(mode)


def _rights(entry: Entry, account: Account) -> int:
    """Return what a user may do, as three bits."""
    if entry.uid == account.uid:
        return entry.mode >> 6 & 0o7
    if entry.gid in (account.gid, *account.groups):
        return entry.mode >> 3 & 0o7
    return entry.mode & 0o7


@contextmanager
def writable_root(
    root: Path,
    place: Path,
    *,
    read_only: bool,
    seen: Callable[[Path], AbstractContextManager[None]],
) -> Iterator[tuple[Path, Path | None]]:
    """Give a run a root that it may write to and that nobody else sees.

    Args:
        root: the image's files.
        place: a folder for what is written.
        read_only: whether nothing will be.
        seen: gives the files of a root the rights that the run has on them.

    Yields:
        The root; a folder to be laid over it, none where it is read-only or a copy, which is made
        where nothing can be laid over (overlay file systems on network folders or on each other).

    Raises:
        OutputError: it cannot be copied.
    """
    if read_only:
        with seen(root):
            yield root, None
        return
    layer = Path(tempfile.mkdtemp(prefix="layer_", dir=place))
    try:
        for part in ("upper", "work", "merged"):
            (layer / part).mkdir()
        if layers_can_be_mounted(root, layer):
            with seen(root):
                _copy_attributes(root, layer / "upper")  # the root has those of its layer
                yield root, layer
        else:
            _copy(root, layer / "copy")
            with seen(layer / "copy"):
                yield layer / "copy", None
    finally:
        remove(layer)


def remove(folder: Path) -> None:
    """Remove a folder with what runs have left in it, whatever its rights.

    Raises:
        OutputError: something in it belongs to another user.
    """
    try:
        if os.geteuid() and folder.is_dir():
            open_up(folder)
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be removed: {error.strerror}",
            fix=f"remove it as root: sudo rm -rf {shlex.quote(str(folder))}",
        ) from error


def open_up(folder: Path, *, files: bool = False) -> None:
    """Let everybody into a folder and every one below it; where `files`, into its files too.

    Raises:
        OSError: something in it belongs to another user.
    """
    folder.chmod(0o777 if files else 0o700)
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            open_up(path, files=files)
        elif files:
            path.chmod(path.stat().st_mode | 0o666)


def _copy(root: Path, target: Path) -> None:
    line = ["cp", "--archive", "--reflink=auto", str(root), str(target)]
    copied = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
    if copied.returncode:
        raise OutputError(
            f"{target}: the image's files cannot be copied: {copied.stderr.strip()[-300:]}",
            fix="name a scratch folder with more space",
        )


def _copy_attributes(root: Path, target: Path) -> None:
    found = root.stat()
    if os.geteuid() == 0:
        os.chown(target, found.st_uid, found.st_gid)
    target.chmod(found.st_mode & 0o7777)
