"""What a service is started with, and whether that is safe."""

import hashlib
import hmac
import ipaddress
import logging
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError, UsageError
from flarekit.core.text_files import read_text

_LOG = logging.getLogger(__name__)
_SHORTEST_TOKEN = 16
_NO_TOKEN = re.compile(r"[^!-~]")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a service is started with.

    Attributes:
        data: folder for uploads, masks and the list of cases; nothing is written elsewhere.
        predictors: names or folders; the first is the one that is taken where none is named.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        device: as in `flarekit.load`; several, separated by commas, take cases side by side.
        precision: as in `flarekit.load`.
        ram_budget_mib: as in `flarekit.load`.
        tokens: each opens the API to somebody; none where only this machine may ask.
        allowed_hosts: further names by which browsers may know this service.
        keep_hours: how long a case stays after it last changed.
        max_upload_gb: bytes of an upload, in GiB; what archives and compressed scans unpack to may
            be twice that.
        queue: how many cases may wait.
        idle_minutes: after which a network that nobody uses gives its memory back.
        stall_s: how long a sender may pause within a request.
    """

    data: Path
    predictors: tuple[str, ...] = ("abdomen_ct",)
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    precision: Any = "auto"
    ram_budget_mib: Any = None
    tokens: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    keep_hours: float = 24.0
    max_upload_gb: float = 4.0
    queue: int = 16
    idle_minutes: float = 15.0
    stall_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what would be open to anybody.

        Raises:
            UsageError: another address than this machine's own, and no token.
        """
        if not self.tokens and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} lets other machines in, and no token is set",
                fix="write a token into a file and give --token-file, or leave --host out",
            )

    @property
    def max_upload_bytes(self) -> int:
        """How many bytes a request may have."""
        return int(self.max_upload_gb * 2**30)

    @property
    def max_unpacked_bytes(self) -> int:
        """How many bytes an upload may unpack to."""
        return 2 * self.max_upload_bytes

    def host_names(self) -> frozenset[str]:
        """Return the names and addresses by which this service may be asked for, lower case."""
        names = {*_LOOPBACK, self.host.lower(), *(name.lower() for name in self.allowed_hosts)}
        if self.host in ("0.0.0.0", "::"):  # noqa: S104 - only with a token
            import psutil

            names.add(socket.gethostname().lower())
            for addresses in psutil.net_if_addrs().values():
                names |= {each.address.partition("%")[0].lower() for each in addresses}
        return frozenset(names)

    def owner_of(self, authorization: str | None) -> str | None:
        """Return who asks: an identifier made of the token, empty where none is needed.

        Args:
            authorization: that header of the request.

        Returns:
            None where the token is not one of ours. How long it takes does not depend on it.
        """
        if not self.tokens:
            return ""
        scheme, _, given = (authorization or "").partition(" ")
        asked = _digest(given.strip() if scheme.lower() == "bearer" else "")
        owner = None
        for token in self.tokens:
            if hmac.compare_digest(asked, _digest(token)):
                owner = _digest(f"owner {token}").hex()[:16]
        return owner


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this machine reaches."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_tokens(path: Path) -> tuple[str, ...]:
    """Return the tokens of a file: one per line; empty lines and those that begin with # are not.

    Raises:
        InputError: it cannot be read, holds none, or one that is short enough to be guessed or
            that no request can carry.
    """
    text = read_text(path, fix="name a file with a token per line, of this user")
    if path.stat().st_mode & stat.S_IROTH:
        _LOG.warning(
            "%s: every user of this machine can read the tokens in it: chmod 600 %s", path, path
        )
    lines = text.splitlines()
    tokens: Sequence[str] = [
        line.strip() for line in lines if line.strip() and not line.startswith("#")
    ]
    make = "make one with: openssl rand -hex 32"
    if not tokens:
        raise InputError(f"{path}: holds no token", fix=make)
    if any(_NO_TOKEN.search(token) for token in tokens):
        raise InputError(
            f"{path}: holds a token with a character that no request carries (a space, or one "
            "beyond ASCII)",
            fix=make,
        )
    if any(len(token) < _SHORTEST_TOKEN for token in tokens):
        raise InputError(
            f"{path}: holds a token of fewer than {_SHORTEST_TOKEN} characters", fix=make
        )
    return tuple(dict.fromkeys(tokens))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
