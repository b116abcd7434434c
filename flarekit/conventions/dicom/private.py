"""Private elements, found by who made them: their tags depend on what other makers have in a file.

The element (gggg,00BB) names the maker that has (gggg,BB00) to (gggg,BBFF): PS3.5, section 7.8.1.
"""

from dataclasses import dataclass

from flarekit.conventions.dicom.elements import Elements

_BLOCKS = range(0x10, 0x20)


@dataclass(frozen=True)
class PrivateElement:
    """An element of a maker.

    Attributes:
        creator: what the maker's name for its block begins with.
        group: of the element.
        offset: within the block.
    """

    creator: str
    group: int
    offset: int

    @property
    def tags(self) -> tuple[int, ...]:
        """Everything that has to be read of a file to find it."""
        first = self.group << 16
        return tuple(
            first | place for block in _BLOCKS for place in (block, block << 8 | self.offset)
        )

    def tag_in(self, elements: Elements) -> int:
        """Return its tag in a file; one that is not there where another maker has the block.

        Where no block has a name, as after some removals of names, it is the first block's.
        """
        first = self.group << 16
        names = {block: elements.text(first | block).upper() for block in _BLOCKS}
        own = [block for block, name in names.items() if name.startswith(self.creator.upper())]
        block = own[0] if own else _BLOCKS.start
        is_others = not own and any(names.values())
        return first if is_others else first | block << 8 | self.offset


# GE: when the scan began; Philips: what one count stands for, in SUV and in Bq/ml
PRIVATE = (
    PrivateElement("GEMS_PETD_01", 0x0009, 0x0D),
    PrivateElement("Philips PET", 0x7053, 0x00),
    PrivateElement("Philips PET", 0x7053, 0x09),
)
