"""Which bits of a stored word are a pixel's value (PS3.5 8.1.1): overlays may lie in the others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom.elements import ElementError
from flarekit.conventions.dicom.slices import Slice
from flarekit.core.errors import UnreadableVolumeError


def stored_bits(each: Slice, allocated: int) -> int:
    """Return how many bits of a word are a pixel's; all where the file does not say."""
    try:
        stored = each.elements.whole("BitsStored")
    except ElementError:
        return allocated
    return stored if 1 <= stored <= allocated else allocated


def within_stored_bits(each: Slice, raw: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Return pixels without what lies above their BitsStored, and what was odd.

    Negative numbers whose sign does not reach up to the top of the word get it; where some of a
    slice have it, its others are taken as they are, though they may need more bits than stated.

    Args:
        each: the slice.
        raw: its words as stored, not decompressed from anything.

    Raises:
        UnreadableVolumeError: the values are shifted within their words (HighBit).
    """
    allocated = 8 * raw.dtype.itemsize
    bits = stored_bits(each, allocated)
    if bits == allocated or not raw.size:
        return raw, []
    _check_not_shifted(each, raw, bits)
    words = raw.astype(f"u{raw.dtype.itemsize}")  # of the machine's order
    above = words >> bits
    if raw.dtype.kind == "u":
        if not above.any():
            return raw, []
        note = f"some pixels have bits above its BitsStored of {bits}: they are left out"
        return words & ((1 << bits) - 1), [note]
    is_extended = above == above.dtype.type((1 << (allocated - bits)) - 1)
    negative = (words >> (bits - 1)) & 1 == 1
    if is_extended.any() or not (negative | (above != 0)).any():
        return raw, []
    note = f"the sign of its pixels does not reach beyond its BitsStored of {bits}: it is extended"
    shift = allocated - bits
    moved = (words << shift).view(f"i{raw.dtype.itemsize}")
    return moved >> shift, [note]


def _check_not_shifted(each: Slice, raw: NDArray[Any], bits: int) -> None:
    """Refuse values that lie above the lowest bits of their words, as HighBit says.

    HighBit is often wrong where they do not: it is believed where the bits below are all 0.
    """
    try:
        high_bit = each.elements.whole("HighBit")
    except ElementError:
        return
    below = high_bit + 1 - bits
    if not 0 < below <= 8 * raw.dtype.itemsize - bits or raw.min() == raw.max():
        return
    if not np.bitwise_and(raw, (1 << below) - 1).any():
        raise UnreadableVolumeError(
            each.path,
            f"its pixels are shifted by {below} bits (HighBit {high_bit}, BitsStored {bits})",
            fix="export it again with HighBit one below BitsStored",
        )
