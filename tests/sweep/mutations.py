"""What a class of mutations is: what it does to inputs, and what has to come of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

ProcessResult = Literal["same", "refused"]


@dataclass(frozen=True)
class Mutation:
    """A class of mutations.

    Attributes:
        name: in plain words.
        outcome: `same` mask as of the inputs as they were, or `refused` in words that name file
            (and element).
        change: changes the inputs in a folder, and returns words that a refusal has to say.
    """

    name: str
    outcome: ProcessResult
    change: Callable[[Random, Path], list[str]]


class Table:
    """The classes of one kind of input, in the order they are written."""

    def __init__(self) -> None:
        self.mutations: list[Mutation] = []

    def same(self, name: str) -> Callable[[Callable[[Random, Path], object]], None]:
        """Add a class after which the mask is the same."""

        def add(change: Callable[[Random, Path], object]) -> None:
            def changed(random: Random, folder: Path) -> list[str]:
                change(random, folder)
                return []

            self.mutations.append(Mutation(name, "same", changed))

        return add

    def refused(self, name: str) -> Callable[[Callable[[Random, Path], list[str]]], None]:
        """Add a class that is refused; the function returns words that the refusal says."""

        def add(change: Callable[[Random, Path], list[str]]) -> None:
            self.mutations.append(Mutation(name, "refused", change))

        return add


def garbage(random: Random, most: int = 200) -> bytes:
    """Return random bytes, at least one."""
    return random.randbytes(random.randint(1, most))


def words(random: Random, most: int = 40) -> str:
    """Return text that somebody may have typed, some of it no ASCII."""
    letters = "abcXYZ 019._-/\\^'\"äß名\t"
    return "".join(random.choice(letters) for _ in range(random.randint(1, most)))
