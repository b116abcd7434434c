"""Cases that real data lack: lesions put into real scans, whole-body PET/CT from organ label maps.

Functions of their arguments and a seed, or a generator that decides: `rng`. Spacings are those of
the voxels, in mm; organ maps have the values of `ORGANS`, in oriented axes: Z superior, Y
posterior, X left. What is made teaches a network shapes, places and what is not a lesion; accuracy
on real lesions is never measured on it.
"""

from flarekit.synthesis.ct_lesion import LesionVoi, ct_lesion_voi
from flarekit.synthesis.pet_lesion import add_pet_lesions
from flarekit.synthesis.wholebody import ORGANS, WholeBody, wholebody_petct

__all__ = [
    "ORGANS",
    "LesionVoi",
    "WholeBody",
    "add_pet_lesions",
    "ct_lesion_voi",
    "wholebody_petct",
]
