"""Scans laid out for an algorithm of grand-challenge.org: a job each, with its `inputs.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flarekit.conventions._arranging import Grid, Placed, ScanToPlace, job_folders
from flarekit.conventions._platform_images import write_json
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.core.names import safe_name
from flarekit.core.scan_files import write_scan


def create(sockets: Sequence[str]) -> JobsWithSockets:
    """Return what lays scans out for an algorithm with these sockets.

    Raises:
        UsageError: one is named twice, or cannot be the name of a folder.
    """
    for index, slug in enumerate(sockets):
        if safe_name(slug) != slug:
            raise UsageError(
                f"--socket {slug!r} is not a slug",
                fix="name it as the algorithm's page does: ct-image",
            )
        if slug in sockets[:index]:
            raise UsageError(
                f"--socket {slug} is named twice: one channel would take the other's place",
                fix="name each channel's socket once, in the channels' order",
            )
    return JobsWithSockets(sockets=tuple(sockets))


@dataclass(frozen=True, kw_only=True)
class JobsWithSockets:
    """Lays scans out, a job each.

    Attributes:
        sockets: slugs, one per channel; `ct-image`, `image-1` and so on where there are none.
    """

    sockets: tuple[str, ...]
    CHANNELS: tuple[str, ...] = ()

    def arrange(self, scans: Sequence[ScanToPlace], folder: Path) -> list[Placed]:
        """Lay scans out: `images/SOCKET/NAME.mha` for each channel, and the list of sockets.

        Raises:
            InputError: a scan cannot be read.
            OutputError: one cannot be written.
        """
        placed = []
        for scan, job, name in job_folders(scans, folder):
            listed = []
            for k, volume in enumerate(scan.read()):
                slug = self._slug(k)
                place = f"images/{slug}"
                make_folder(job / place)
                write_scan(job / place / f"{scan.name}.mha", volume)
                socket = {"slug": slug, "relative_path": place, "kind": "Image"}
                listed.append({"socket": socket, "image": {"name": f"{scan.name}.mha"}})
            write_json(job / "inputs.json", listed)
            grid = Grid.of_file(job / "images" / self._slug(0) / f"{scan.name}.mha")
            placed.append(Placed(mask=scan.mask.as_posix(), job=name, stem=scan.name, grid=grid))
        return placed

    def _slug(self, channel: int) -> str:
        if channel < len(self.sockets):
            return self.sockets[channel]
        return f"image-{channel}" if channel else "ct-image"
