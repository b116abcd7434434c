"""One colour per label value for ever: in pictures, in DICOM segmentations, in contours."""

import colorsys

# strong ones first, their pale twins after: those of Tableau's palette
_FIRST = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
    (174, 199, 232),
    (255, 187, 120),
    (152, 223, 138),
    (255, 152, 150),
    (197, 176, 213),
    (196, 156, 148),
    (247, 182, 210),
    (199, 199, 199),
    (219, 219, 141),
    (158, 218, 229),
)
_GOLDEN = 0.618033988749895  # of the circle of hues: neighbours in number are far apart
_LIGHTNESS = (0.5, 0.7, 0.35)


def colour_of(value: int) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a label by its value in the mask, 1 to 255.

    >>> colour_of(1), colour_of(2)
    ((31, 119, 180), (255, 127, 14))
    """
    if 1 <= value <= len(_FIRST):
        return _FIRST[value - 1]
    hue = value * _GOLDEN % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, _LIGHTNESS[value % len(_LIGHTNESS)], 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
