"""Masks that hypothesis may make."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


def masks(shape, share=0.4):
    """Return bool arrays of a shape."""
    cells = st_numpy.arrays(np.float64, shape, elements=st.floats(0, 1, width=16))
    return cells.map(lambda values: values < share)


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(masks(shape), masks(shape)))
SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 2.5])] * 3)
