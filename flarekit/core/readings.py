"""A figure that was read, or the reason why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """There is no such figure here; it is not zero.

    Attributes:
        not_supported: why, in words.
    """

    not_supported: str


Reading = float | Unsupported
