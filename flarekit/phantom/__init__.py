"""Phantom abdominal CTs with the 13 FLARE organs from a seed: test data without a patient."""

from flarekit.phantom.scan import Phantom, abdomen_phantom, save_phantom

__all__ = ["Phantom", "abdomen_phantom", "save_phantom"]
