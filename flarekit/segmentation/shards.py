"""A share of a cohort for each of several processes, without anything between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.errors import UsageError
from flarekit.segmentation.memory import file_mib


@dataclass(frozen=True)
class Shard:
    """One of the shares that a cohort is dealt out in.

    Attributes:
        number: which, from 1 on.
        count: how many there are.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the shard that text like `3/8` names.

        Raises:
            UsageError: it names none.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"{text!r} is not a shard", fix="write 1/8 for the first of eight, up to 8/8"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """How the files that it writes are told from those of other shards."""
        return f"{self.number}-of-{self.count}"


def cases_of(shard: Shard, cases: Sequence[Case], convention: Convention) -> list[Case]:
    """Return the cases of a shard, in the order in which they were found.

    Every process that sees the same folder deals the cases out in the same way: the largest first,
    of those of one size the first by id, each to the shard that has least so far. Cases that are
    parts of one mask stay together.

    Args:
        shard: which.
        cases: all of them.
        convention: knows which part of its files a case is.
    """
    sizes: dict[Path, float] = {}
    for case in cases:
        share = conventions.share_of(convention, case)
        sizes[case.mask] = sizes.get(case.mask, 0.0) + share * file_mib(case.channels)
    loads = [0.0] * shard.count
    mine = set()
    for mask in sorted(sizes, key=lambda path: (-sizes[path], str(path))):
        least = min(range(shard.count), key=lambda index: (loads[index], index))
        loads[least] += sizes[mask]
        if least + 1 == shard.number:
            mine.add(mask)
    return [case for case in cases if case.mask in mine]
