"""One pass over the voxels for all rules and labels; after it, rules are arithmetic on a graph.

A region is a connected set of voxels of one value: by faces (6), the background's included, where a
rule fills holes; else by faces, edges or corners (26), and the background is one region. Components
are unions of regions that touch and are worth the same *now*, so a rule sees what the one before
left.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Numbers: TypeAlias = NDArray[np.int64]
_INNER = (slice(1, -1),) * 3
# bytes per voxel and per run of equal voxels, measured on smooth and on noisy maps
_WITH_BACKGROUND, _WITHOUT_BACKGROUND = (9, 420), (6, 70)


def regions_bytes(label_map_ZYX: NDArray[np.uint8], *, background: bool) -> int:
    """Return what finding regions allocates at most: by voxel, and by run of equal voxels."""
    runs = sum(
        int(np.count_nonzero(slice_YX[:, 1:] != slice_YX[:, :-1])) + len(slice_YX)
        for slice_YX in label_map_ZYX
    )
    per_voxel, per_run = _WITH_BACKGROUND if background else _WITHOUT_BACKGROUND
    return per_voxel * label_map_ZYX.size + per_run * runs


class Regions:
    """The regions of a label map, what each is worth, and which touch.

    Regions are numbered by their first voxel in (Z, Y, X) order; region 0 is what lies outside.

    Attributes:
        values: (R,) uint8, the label of each region now; rules change it.
        sizes: (R,) int64, voxels of each region.
    """

    def __init__(self, label_map_ZYX: NDArray[np.uint8], *, background: bool) -> None:
        """Find the regions.

        Args:
            label_map_ZYX: uint8; what lies around it is background.
            background: split the background too, so that `enclosed` can be asked.
        """
        import cc3d

        padded = np.zeros([length + 2 for length in label_map_ZYX.shape], np.uint8)
        padded[_INNER] = label_map_ZYX
        if background:  # cc3d leaves zeros out
            shifted = np.add(padded, 1, dtype=np.uint8 if padded.max() < 255 else np.uint16)
            numbered = cc3d.connected_components(shifted, connectivity=6)
            areas = cc3d.contacts(numbered, connectivity=26)
        else:
            numbered, areas = cc3d.connected_components(padded, connectivity=26), {}
        outside = int(numbered[0, 0, 0])
        self._touching = np.array(list(areas), np.int64).reshape(-1, 2) - outside
        self._by_face = np.fromiter(areas.values(), np.float64) > 0
        # Equal voxels in a row are one region; rows end in padding, so runs may cross them.
        flat = padded.ravel()
        starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
        self._shape = padded.shape
        self._run_lengths = np.diff(starts, append=flat.size)
        self._run_regions: _Numbers = numbered.ravel()[starts].astype(np.int64) - outside
        self.sizes = np.bincount(self._run_regions, weights=self._run_lengths).astype(np.int64)
        self.values = np.zeros(len(self.sizes), np.uint8)
        self.values[self._run_regions] = flat[starts]

    def label_map(self) -> NDArray[np.uint8]:
        """Return the label map with every region at its present worth."""
        flat = np.repeat(self.values[self._run_regions], self._run_lengths)
        mapped: NDArray[np.uint8] = flat.reshape(self._shape)[_INNER]
        return mapped

    def components(self) -> tuple[_Numbers, _Numbers]:
        """Return the 26-connected component of every region, and the voxels of every component."""
        components = self._joined(self.values, self._touching)
        return components, np.bincount(components, weights=self.sizes).astype(np.int64)

    def enclosed(self, label: int) -> NDArray[np.bool_]:
        """Return which regions a label keeps from the outside, whatever they are worth."""
        others = self.values != label
        groups = self._joined(others, self._touching[self._by_face])
        enclosed: NDArray[np.bool_] = others & (groups != groups[0])
        return enclosed

    def _joined(self, kinds: NDArray[np.generic], pairs: _Numbers) -> _Numbers:
        """Number connected groups of regions; touching regions of one kind are connected."""
        if not len(pairs):
            return np.arange(len(kinds))  # the library takes longer to load than most masks
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        first, second = pairs[kinds[pairs[:, 0]] == kinds[pairs[:, 1]]].T
        shape = (len(kinds), len(kinds))
        graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape)
        groups: _Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
        return groups
