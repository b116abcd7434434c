"""Which tiles of the window are worth most, and which of them there is time for."""

from __future__ import annotations

from collections.abc import Sequence

Tile = tuple[int, int, int]  # where it starts, (Z, Y, X)


class Schedule:
    """Tiles in the order of their worth; a sweep takes the best of them, upwards in Z.

    Attributes:
        waiting: tiles that were not run, best first.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        """Remember the tiles.

        Args:
            tiles: best first, each once.
        """
        self.waiting = list(tiles)

    def next_z(self, count: int, lowest_z: int) -> int | None:
        """Return the slice at which the next of the best `count` tiles start, from a slice on."""
        return min((z for z, _, _ in self._best(count, lowest_z)), default=None)

    def take(self, count: int, z: int) -> tuple[int, int] | None:
        """Return the (Y, X) of a tile at slice z that is among the best `count`, and strike it off.

        Args:
            count: of the tiles that start at z or above.
            z: the slice.
        """
        here = [tile for tile in self._best(count, z) if tile[0] == z]
        if not here:
            return None
        tile = min(here)
        self.waiting.remove(tile)
        return tile[1:]

    def beyond(self, count: int, lowest_z: int, first: int, depth: int) -> int:
        """Return how many slices the best `count` tiles cover together, from a slice on.

        Args:
            count: of the tiles that start at lowest_z or above.
            lowest_z: see there.
            first: the slice from which on they count.
            depth: of a tile.
        """
        total = 0
        for z in sorted({z for z, _, _ in self._best(count, lowest_z)}):
            total += max(0, z + depth - max(z, first))
            first = max(first, z + depth)
        return total

    def _best(self, count: int, lowest_z: int) -> list[Tile]:
        return [tile for tile in self.waiting if tile[0] >= lowest_z][:count]
