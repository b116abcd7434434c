"""One pass over the voxels for all rules and labels; after it, rules are arithmetic on a graph.

A region is a face-connected set of voxels of one value, the background's included. Components are
unions of regions that touch and are worth the same *now*, so a rule sees what the one before left.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def foreground_box(label_map_ZYX: NDArray[np.uint8]) -> tuple[slice, slice, slice] | None:
    """Return the box of everything labelled and one voxel around, None where nothing is."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(label_map_ZYX.any(axis=others))
        if not len(inside):
            return None
        last = min(label_map_ZYX.shape[axis], int(inside[-1]) + 2)
        box.append(slice(max(0, int(inside[0]) - 1), last))
    return box[0], box[1], box[2]


class Regions:
    """The regions of a label map, what each is worth, and which touch.

    Attributes:
        values: (R,) uint8, the label of each region now; rules change it.
        sizes: (R,) voxels of each region.
    """

    def __init__(self, label_map_ZYX: NDArray[np.uint8]) -> None:
        import cc3d

        shifted = label_map_ZYX.astype(np.uint16) + 1  # cc3d leaves zeros out
        numbered, count = cc3d.connected_components(shifted, connectivity=6, return_N=True)
        self._numbered_ZYX: NDArray[np.unsignedinteger] = numbered
        self.values = np.zeros(count + 1, np.uint8)
        self.values[numbered.ravel()] = label_map_ZYX.ravel()
        self.sizes = np.bincount(numbered.ravel(), minlength=count + 1)

    def label_map(self) -> NDArray[np.uint8]:
        """Return the label map with every region at its present worth."""
        mapped: NDArray[np.uint8] = self.values[self._numbered_ZYX]
        return mapped

    def components(self, label: int) -> NDArray[np.int64]:
        """Return the 26-connected component of every region of a label, -1 for all others."""
        return self._grouped(self.values == label, self._touching)

    def enclosed(self, label: int) -> NDArray[np.bool_]:
        """Return which regions a label keeps from the border, whatever they are worth."""
        outside = self.values != label
        groups = self._grouped(outside, self._sharing_faces)
        open_groups = np.unique(groups[self._at_border])
        enclosed: NDArray[np.bool_] = outside & ~np.isin(groups, open_groups)
        enclosed[0] = False
        return enclosed

    @cached_property
    def _touching(self) -> NDArray[np.int64]:
        return self._pairs(26)

    @cached_property
    def _sharing_faces(self) -> NDArray[np.int64]:
        return self._pairs(6)

    def _pairs(self, connectivity: Literal[6, 26]) -> NDArray[np.int64]:
        import cc3d

        pairs = cc3d.region_graph(self._numbered_ZYX, connectivity=connectivity)
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    @cached_property
    def _at_border(self) -> NDArray[np.int64]:
        n = self._numbered_ZYX
        faces = (n[0], n[-1], n[:, 0], n[:, -1], n[:, :, 0], n[:, :, -1])
        return np.unique(np.concatenate([face.ravel() for face in faces])).astype(np.int64)

    def _grouped(self, chosen: NDArray[np.bool_], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        count = len(chosen)
        kept = pairs[chosen[pairs].all(axis=1)]
        graph = coo_matrix((np.ones(len(kept), np.int8), (kept[:, 0], kept[:, 1])), (count, count))
        groups = connected_components(graph, directed=False)[1].astype(np.int64)
        return np.where(chosen, groups, -1)
