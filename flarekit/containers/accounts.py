"""Who a program runs as: names and numbers of an image's own users, resolved as Docker does."""

from dataclasses import dataclass
from pathlib import Path

from flarekit.containers.unpack import inside
from flarekit.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of an image.

    Attributes:
        groups: further ones, beside `gid`.
        home: `/` where the image says nothing.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def find_account(root: Path, user: str) -> Account:
    """Return the user that an image's USER, or Docker's `--user`, means.

    Args:
        root: the image's files.
        user: `USER`, `USER:GROUP`, each by name or number; empty for root.

    Raises:
        InputError: the image has no user or group of that name.
    """
    name, has_group, group = (user or "0").partition(":")
    known = next((row for row in _rows(root, "passwd", 6) if name in (row[0], row[2])), None)
    if known is None and not name.isdecimal():
        raise InputError(
            f"unable to find user {name}: no matching entries in passwd file",
            fix="make the user in the image, or set USER to numbers, as 1000:1000",
        )
    groups = _rows(root, "group", 3)
    further: tuple[int, ...] = ()
    if has_group and group:
        gid = _group(groups, group)
    elif known:
        gid = int(known[3])
        further = tuple(int(row[2]) for row in groups if known[0] in "".join(row[3:4]).split(","))
    else:
        gid = 0
    return Account(
        uid=int(known[2]) if known else int(name),
        gid=gid,
        groups=further,
        home=(known[5] if known else "") or "/",
    )


def _group(groups: list[list[str]], wanted: str) -> int:
    for row in groups:
        if wanted in (row[0], row[2]):
            return int(row[2])
    if not wanted.isdecimal():
        raise InputError(
            f"unable to find group {wanted}: no matching entries in group file",
            fix="make the group in the image, or set USER to numbers, as 1000:1000",
        )
    return int(wanted)


def _rows(root: Path, name: str, columns: int) -> list[list[str]]:
    """Return the rows of a file in `/etc` whose numbers are numbers."""
    path = inside(root, f"/etc/{name}")
    text = path.read_text(errors="replace") if path.is_file() else ""
    rows = [line.strip().split(":") for line in text.splitlines()]
    return [
        row
        for row in rows
        if len(row) >= columns and row[2].isdecimal() and (name == "group" or row[3].isdecimal())
    ]
