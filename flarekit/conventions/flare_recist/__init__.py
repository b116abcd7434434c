"""FLARE25, task 1: the files of a CT with a line across each lesion, and of its masks."""

LINES, IMAGE, MASKS, SPACING = "recist", "imgs", "segs", "spacing"
