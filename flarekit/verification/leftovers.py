"""What a run has left in its folders: digests, differences, links; and rights for every user."""

import os
from collections.abc import Mapping
from pathlib import Path

from flarekit.core.files import below, sha256_of


def open_to_others(path: Path, mode: int) -> bool:
    """Tell whether every user has these rights (of `os.access`) on a path."""
    return path.stat().st_mode & mode == mode


def take_links(folder: Path) -> list[str]:
    """Remove the symbolic links below a folder, which lead to other places here than inside."""
    links = [path for path in below(folder) if path.is_symlink()]
    words = [f"{path.relative_to(folder).as_posix()} -> {path.readlink()}" for path in links]
    for path in links:
        path.unlink()
    return words


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative name."""
    found = {}
    for path in below(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"a link to {path.readlink()}"
        elif path.is_file():
            found[name] = _digest(path)
        elif not path.is_dir():
            found[name] = "a device, a pipe or a socket"
        elif not os.access(path, os.R_OK | os.X_OK):
            found[f"{name}/"] = "a folder that cannot be opened"
        elif not any(path.iterdir()):
            found[f"{name}/"] = "an empty folder"
    return found


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return what was added, removed or changed between two answers of `digests`, in words."""
    added = [f"added {name}" for name in sorted(after.keys() - before.keys())]
    removed = [f"removed {name}" for name in sorted(before.keys() - after.keys())]
    common = sorted(before.keys() & after.keys())
    return added + removed + [f"changed {name}" for name in common if before[name] != after[name]]
