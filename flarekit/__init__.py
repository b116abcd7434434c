"""flarekit: from a trained 3D segmentation network to a challenge submission."""

__version__ = "0.1.0"
