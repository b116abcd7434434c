from __future__ import annotations

import inspect
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from flarekit import postprocess
from flarekit.core.errors import PredictorError
from flarekit.core.spec import Rule

LABELS = {"liver": 1, "spleen": 3, "lesion": 200}
FULL = np.ones((3, 3, 3))
ON_REGIONS = [
    name
    for name in postprocess.names()
    if hasattr(import_module(f"flarekit.postprocess.{name}"), "apply")
]

label_maps = st.tuples(*[st.integers(1, 7)] * 3).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 3, 200]))
)
some_rules = st.lists(
    st.one_of(
        st.builds(
            Rule,
            name=st.sampled_from(["largest_component", "fill_holes"]),
            labels=st.permutations(list(LABELS)).map(tuple),
        ),
        st.builds(
            Rule,
            name=st.just("min_volume_ml"),
            labels=st.just(("liver", "lesion")),
            value=st.floats(0.5, 20),
        ),
    ),
    max_size=3,
)


def largest(label_map, value):
    numbered, count = ndimage.label(label_map == value, FULL)
    result = label_map.copy()
    if count:
        keep = 1 + np.argmax(np.bincount(numbered.ravel())[1:])  # the first of equals
        result[(numbered > 0) & (numbered != keep)] = 0
    return result


def at_least(label_map, value, ml, voxel_ml):
    numbered, _ = ndimage.label(label_map == value, FULL)
    small = np.bincount(numbered.ravel()) * voxel_ml < ml
    result = label_map.copy()
    result[(numbered > 0) & small[numbered]] = 0
    return result


def filled(label_map, value):
    result = label_map.copy()
    result[(label_map == 0) & ndimage.binary_fill_holes(label_map == value)] = value
    return result


def by_scipy(label_map, rules, voxel_ml):
    """Apply rules label by label, one scipy pass each."""
    for rule in rules:
        for name in rule.labels:
            value = LABELS[name]
            if rule.name == "largest_component":
                label_map = largest(label_map, value)
            elif rule.name == "min_volume_ml":
                label_map = at_least(label_map, value, rule.value, voxel_ml)
            else:
                label_map = filled(label_map, value)
    return label_map


def apply(label_map, *rules, voxel_ml=1.0):
    return postprocess.apply_rules(label_map, rules, LABELS, voxel_ml=voxel_ml)


def rule(name, *labels, value=None):
    return Rule(name=name, labels=labels, value=value)


@pytest.mark.long
@given(label_maps, some_rules, st.sampled_from([0.5, 1.0, 3.0]))
def test_any_chain_of_rules_decides_like_scipy_label_by_label(label_map, rules, voxel_ml):
    ours = apply(label_map, *rules, voxel_ml=voxel_ml)
    np.testing.assert_array_equal(ours, by_scipy(label_map, rules, voxel_ml))


@pytest.mark.long
@given(label_maps, st.sampled_from(ON_REGIONS), st.permutations(list(LABELS)))
def test_every_rule_applied_twice_is_the_rule_applied_once(label_map, name, labels):
    one = rule(name, *labels, value=3.0 if name == "min_volume_ml" else None)
    once = apply(label_map, one)
    np.testing.assert_array_equal(apply(once, one), once)


@pytest.mark.long
@given(label_maps, some_rules)
def test_removing_then_filling_applied_twice_is_the_same_as_once(label_map, rules):
    chain = sorted(rules, key=lambda each: each.name == "fill_holes")
    once = apply(label_map, *chain)
    np.testing.assert_array_equal(apply(once, *chain), once)


@pytest.mark.parametrize("name", ON_REGIONS)
def test_every_rule_defines_what_the_package_asks(name):
    module = import_module(f"flarekit.postprocess.{name}")
    assert isinstance(module.TAKES_VALUE, bool)
    assert isinstance(module.FILLS, bool)
    parameters = tuple(inspect.signature(module.apply).parameters)
    assert parameters == ("regions", "labels", "value", "voxel_ml")


@pytest.mark.long
@given(label_maps, some_rules, st.permutations(range(3)))
def test_the_order_of_axes_in_memory_does_not_matter(label_map, rules, axes):
    strided = label_map.transpose(axes).copy().transpose(np.argsort(axes))
    np.testing.assert_array_equal(apply(strided, *rules), apply(label_map, *rules))


@pytest.mark.long
@given(label_maps, st.sampled_from(ON_REGIONS))
def test_labels_that_are_not_listed_are_never_touched(label_map, name):
    after = apply(label_map, rule(name, "liver", value=3.0 if name == "min_volume_ml" else None))
    for value in (3, 200):
        np.testing.assert_array_equal(after == value, label_map == value)


@pytest.mark.long
@given(label_maps)
def test_the_input_is_not_changed(label_map):
    before = label_map.copy()
    apply(label_map, rule("largest_component", *LABELS), rule("fill_holes", *LABELS))
    np.testing.assert_array_equal(label_map, before)


def test_of_two_equal_components_the_first_in_memory_stays():
    label_map = np.zeros((1, 1, 7), np.uint8)
    label_map[0, 0, [0, 1, 3, 4, 6]] = 1
    after = apply(label_map, rule("largest_component", "liver"))
    assert after[0, 0].tolist() == [1] * 2 + [0] * 5


def test_voxels_that_touch_by_a_corner_are_one_component():
    label_map = np.zeros((3, 3, 3), np.uint8)
    label_map[0, 0, 0] = label_map[1, 1, 1] = label_map[2, 2, 2] = 1
    assert apply(label_map, rule("largest_component", "liver")).sum() == 3


def test_a_volume_of_exactly_the_minimum_stays():
    label_map = np.zeros((1, 1, 9), np.uint8)
    label_map[0, 0, :4] = 1
    label_map[0, 0, 5:8] = 1
    after = apply(label_map, rule("min_volume_ml", "liver", value=2.0), voxel_ml=0.5)
    assert after[0, 0].tolist() == [1] * 4 + [0] * 5


def test_rounding_does_not_cost_a_component_of_exactly_the_minimum():
    label_map = np.ones((1, 1, 100), np.uint8)
    assert 100 * 0.57 < 57.0
    after = apply(label_map, rule("min_volume_ml", "liver", value=57.0), voxel_ml=0.57)
    assert after.all()


def test_a_single_voxel_survives_unless_it_is_too_small():
    label_map = np.zeros((3, 4, 5), np.uint8)
    label_map[2, 3, 4] = 255
    labels = {"last": 255}
    for name in ("largest_component", "fill_holes"):
        after = postprocess.apply_rules(label_map, [rule(name, "last")], labels, voxel_ml=1.0)
        np.testing.assert_array_equal(after, label_map)
    small = rule("min_volume_ml", "last", value=1.1)
    assert not postprocess.apply_rules(label_map, [small], labels, voxel_ml=1.0).any()


def test_a_cavity_that_reaches_the_border_is_no_hole():
    label_map = np.ones((5, 5, 5), np.uint8)
    label_map[2, 2, 2:] = 0
    after = apply(label_map, rule("fill_holes", "liver"))
    np.testing.assert_array_equal(after, label_map)
    label_map[2, 2, 4] = 1
    assert apply(label_map, rule("fill_holes", "liver")).all()


def test_what_an_earlier_rule_removed_is_background_to_a_later_one():
    label_map = np.ones((5, 5, 5), np.uint8)
    label_map[2, 2, 2] = 3
    too_small = rule("min_volume_ml", "spleen", value=2.0)
    assert apply(label_map, too_small)[2, 2, 2] == 0
    assert apply(label_map, too_small, rule("fill_holes", "liver"))[2, 2, 2] == 1


def test_components_that_a_filled_hole_joins_are_one():
    label_map = np.zeros((7, 7, 9), np.uint8)
    label_map[1:6, 1:6, 1:6] = 1
    label_map[2:5, 2:5, 2:5] = 0
    label_map[3, 3, 3] = 1
    label_map[3, 3, 8] = 1
    chain = rule("fill_holes", "liver"), rule("largest_component", "liver")
    assert apply(label_map, *chain).sum() == 5**3
    assert apply(label_map, *chain[::-1])[3, 3, 8] == 0


def test_a_fill_behind_another_label_is_a_component_of_its_own():
    label_map = np.ones((15, 15, 15), np.uint8)
    label_map[1:-1, 1:-1, 1:-1] = 3
    label_map[2:-2, 2:-2, 2:-2] = 0
    chain = rule("largest_component", "liver"), rule("fill_holes", "liver")
    once = apply(label_map, *chain)
    assert (once[2:-2, 2:-2, 2:-2] == 1).all()
    assert apply(once, *chain)[0, 0, 0] == 0  # the shell has fewer voxels than what it holds


def test_a_hole_is_filled_and_what_lies_in_it_is_kept():
    label_map = np.full((5, 5, 5), 1, np.uint8)
    label_map[2, 2, 1:4] = 0
    label_map[2, 2, 2] = 200
    after = apply(label_map, rule("fill_holes", "liver"))
    assert after[2, 2].tolist() == [1, 1, 200, 1, 1]


def test_a_hole_that_two_labels_enclose_goes_to_the_first_listed():
    label_map = np.full((7, 7, 7), 1, np.uint8)
    label_map[1:6, 1:6, 1:6] = 3
    label_map[3, 3, 3] = 0
    assert apply(label_map, rule("fill_holes", "spleen", "liver"))[3, 3, 3] == 3
    assert apply(label_map, rule("fill_holes", "liver", "spleen"))[3, 3, 3] == 1


@pytest.mark.parametrize("value", [0, 1])
def test_an_empty_and_a_full_map_stay_as_they_are(value):
    label_map = np.full((3, 4, 5), value, np.uint8)
    after = apply(label_map, rule("largest_component", *LABELS), rule("fill_holes", *LABELS))
    np.testing.assert_array_equal(after, label_map)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Rule(name="largest_componnt", labels=("liver",)), "no rule"),
        (Rule(name="min_volume_ml", labels=("liver",)), "needs a positive value"),
        (Rule(name="min_volume_ml", labels=("liver",), value=-1), "needs a positive value"),
        (Rule(name="fill_holes", labels=("liver",), value=1), "takes no value"),
    ],
)
def test_rules_that_cannot_be_applied_are_refused_beforehand(bad, words):
    with pytest.raises(PredictorError, match=words):
        postprocess.check_rules([bad])


def test_a_misspelled_rule_gets_a_hint():
    with pytest.raises(PredictorError, match="did you mean 'largest_component'"):
        postprocess.check_rules([Rule(name="largest_componnt", labels=())])
