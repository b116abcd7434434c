"""Labels are decided as if all logits had been resampled first, however they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.preprocess.axis_maps import axis_map, matrix_of
from flarekit.preprocess.decide import Decider

VALUES = np.array([0, 4, 2], np.uint8)


def expected(logits, shape, orders, values, *, regions, padding):
    """Resample everything, then decide."""
    inside = tuple(
        slice(low, n - high) for (low, high), n in zip(padding, logits.shape[1:], strict=True)
    )
    grid = logits[:, *inside]
    maps = [
        matrix_of(axis_map(n, m, order))
        for n, m, order in zip(grid.shape[1:], shape, orders, strict=True)
    ]
    dense = np.einsum("kzyx,az,by,cx->kabc", grid, *maps, optimize=True)
    if not regions:
        return values[dense.argmax(axis=0)]
    labels = np.zeros(shape, np.uint8)
    for region, value in zip(dense, values, strict=True):
        labels[region > 0] = value
    return labels


def decided(logits, shape, orders, values, *, regions, padding, slabs):
    target = np.zeros(shape, np.uint8)
    grid = tuple(n - low - high for n, (low, high) in zip(logits.shape[1:], padding, strict=True))
    decider = Decider(grid, target, orders, values, regions=regions, padding=padding)
    assert not decider.has_begun
    first = 0
    while first < logits.shape[1]:
        count = slabs[first % len(slabs)]
        decider.add(logits[:, first : first + count])
        assert decider.has_begun
        first += count
    decider.finish()
    return target


sides = st.integers(0, 2)


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(
    grid=st.tuples(*[st.integers(1, 9)] * 3),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    order=st.sampled_from([0, 1, 3]),
    regions=st.booleans(),
    background=st.sampled_from([0, 9]),
    padding=st.tuples(*[st.tuples(sides, sides)] * 3),
    slabs=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    empty=st.booleans(),
    seed=st.integers(0, 99),
)
def test_labels_are_those_of_logits_that_were_resampled_as_a_whole(
    grid, shape, order, regions, background, padding, slabs, empty, seed
):
    values = VALUES.copy()
    values[0] = 7 if regions else background
    rng = np.random.default_rng(seed)
    stored = tuple(low + n + high for n, (low, high) in zip(grid, padding, strict=True))
    logits = rng.normal(size=(3, *stored)).astype(np.float32)
    if empty:  # most of it is background, as in a scan
        found = tuple(slice(n // 3, n // 3 + 2) for n in stored)
        logits[1 - regions :] -= 9
        logits[1, *found] += 20
    how = {"regions": regions, "padding": padding}
    orders = (order, order, order)
    labels = decided(logits, shape, orders, values, **how, slabs=slabs)
    wanted = expected(logits, shape, orders, values, **how)
    assert (labels == wanted).mean() > 0.999 if labels.size > 999 else (labels == wanted).all()


@pytest.mark.quick(1)
@pytest.mark.parametrize("shape", [(40, 300, 280), (40, 5, 4)])
def test_many_large_slices_at_once_are_painted_like_few_small_ones(shape):
    logits = np.random.default_rng(0).normal(size=(3, 20, 30, 28)).astype(np.float32)
    how = {"regions": False, "padding": ((0, 0),) * 3}
    at_once = decided(logits, shape, (1, 1, 1), VALUES, **how, slabs=[20])
    one_by_one = decided(logits, shape, (1, 1, 1), VALUES, **how, slabs=[1])
    np.testing.assert_array_equal(at_once, one_by_one)
    wanted = expected(logits, shape, (1, 1, 1), VALUES, **how)
    assert (at_once == wanted).mean() > 0.9999


def test_of_classes_that_are_as_likely_the_first_is_taken():
    target = np.full((2, 2, 2), 9, np.uint8)
    decider = Decider((2, 2, 2), target, (1, 1, 1), np.array([5, 6, 7], np.uint8))
    logits = np.zeros((3, 2, 2, 2), np.float32)
    logits[1:, 0] = 1
    decider.add(logits)
    np.testing.assert_array_equal(target[0], 6)
    np.testing.assert_array_equal(target[1], 5)


@pytest.mark.parametrize(
    "shape", [(2, 2, 4, 4), (4, 2, 4, 4), (3, 2, 5, 4), (3, 2, 4, 5), (3, 5, 4, 4)]
)
def test_logits_of_another_network_grid_or_length_are_refused(shape):
    decider = Decider((4, 4, 4), np.zeros((4, 4, 4), np.uint8), (1, 1, 1), VALUES)
    with pytest.raises(ValueError, match=r"logits \(3, 4, 4, 4\) expected, got"):
        decider.add(np.zeros(shape, np.float32))


def test_slices_that_did_not_come_are_missed():
    decider = Decider((4, 4, 4), np.zeros((4, 4, 4), np.uint8), (1, 1, 1), VALUES)
    decider.add(np.zeros((3, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="3 slices came"):
        decider.finish()
    with pytest.raises(ValueError, match="expected, got"):
        decider.add(np.zeros((3, 2, 4, 4), np.float32))
    decider.add(np.zeros((3, 1, 4, 4), np.float32))
    decider.finish()


def test_a_slab_may_be_used_again_once_its_slices_are_taken():
    logits = np.random.default_rng(3).normal(size=(3, 6, 5, 4)).astype(np.float32)
    how = {"regions": False, "padding": ((0, 0),) * 3}
    wanted = decided(logits, (11, 9, 7), (1, 1, 1), VALUES, **how, slabs=[6])
    target = np.zeros((11, 9, 7), np.uint8)
    decider = Decider((6, 5, 4), target, (1, 1, 1), VALUES)
    slab = np.empty((3, 2, 5, 4), np.float32)
    for first in (0, 2, 4):
        slab[:] = logits[:, first : first + 2]
        decider.add(slab)
        slab[:] = np.nan
    np.testing.assert_array_equal(target, wanted)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(
    grid=st.tuples(st.integers(3, 12), st.integers(1, 6), st.integers(1, 6)),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    order=st.sampled_from([0, 1, 3]),
    regions=st.booleans(),
    background=st.sampled_from([0, 9]),
    padding=st.tuples(*[st.tuples(sides, sides)] * 3),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_blank_slices_are_as_good_as_zeros(
    grid, shape, order, regions, background, padding, seed, data
):
    padded = tuple(n + low + high for n, (low, high) in zip(grid, padding, strict=True))
    logits = np.random.default_rng(seed).normal(size=(3, *padded)).astype(np.float32)
    first = data.draw(st.integers(0, padded[0]))
    end = data.draw(st.integers(first, padded[0]))
    logits[:, first:end] = 0
    values = np.array([background, 4, 2], np.uint8)
    targets = [np.zeros(shape, np.uint8) for _ in range(2)]
    whole, parts = (
        Decider(grid, target, (order,) * 3, values, regions=regions, padding=padding)
        for target in targets
    )
    whole.add(logits)
    parts.add(logits[:, :first])
    parts.add_blank(end - first)
    parts.add(logits[:, end:])
    for decider in (whole, parts):
        decider.finish()
    np.testing.assert_array_equal(*targets)


def test_more_blank_slices_than_the_grid_has_are_refused():
    decider = Decider((4, 4, 4), np.zeros((4, 4, 4), np.uint8), (1, 1, 1), VALUES)
    with pytest.raises(ValueError, match="5 slices more"):
        decider.add_blank(5)
