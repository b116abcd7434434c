"""ULS23 on grand-challenge.org: a stack of VOIs in, a stack of lesion masks out."""

SHAPE_ZYX = (128, 256, 256)  # voxels of a volume of interest
