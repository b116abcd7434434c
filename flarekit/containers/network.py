"""Whether a program without a network has tried to use one, by the kernel's own counters."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

# packets that had no way out, over IPv4 and IPv6; and those to a name server that is not there
_COUNTERS = {"snmp": ("Ip:OutNoRoutes", "Udp:NoPorts"), "snmp6": ("Ip6OutNoRoutes", "Udp6NoPorts")}


class NetworkTries:
    """Counts the tries in a process's network namespace, which stays while this is open.

    Args:
        pid: of a process in the namespace; 0 where it is over already.
    """

    def __init__(self, pid: int) -> None:
        self._open = ExitStack()
        self._files: dict[str, IO[str]] = {}
        for name in _COUNTERS if pid else ():
            try:
                file = Path(f"/proc/{pid}/net/{name}").open(encoding="ascii")  # noqa: SIM115
            except OSError:
                continue  # it is over, or the kernel has no IPv6
            self._files[name] = self._open.enter_context(file)

    def __enter__(self) -> NetworkTries:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def count(self) -> int | None:
        """Return how many packets found no way out; None where that is not seen."""
        if not self._files:
            return None
        found: dict[str, int] = {}
        for file in self._files.values():
            file.seek(0)
            found.update(read_counters(file.read()))
        return sum(found.get(key, 0) for keys in _COUNTERS.values() for key in keys)


def read_counters(text: str) -> dict[str, int]:
    """Return the counters of `/proc/PID/net/snmp` (as `Ip:Name`) or `snmp6` (as `Ip6Name`)."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if rows and not rows[0][0].endswith(":"):
        return {row[0]: int(row[1]) for row in rows if len(row) == 2}
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return {
        f"{names[0]}{name}": int(value)
        for names, values in pairs
        for name, value in zip(names[1:], values[1:], strict=True)
    }
