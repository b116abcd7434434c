from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.core.readings import Unsupported
from flarekit.profiler.figures import Curve, area, curve_of, measure, official_area_over, over
from flarekit.profiler.folder import excess_of
from flarekit.profiler.official import record_of
from flarekit.profiler.page.curves import thinned
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import Tolerances

GONE = Unsupported(not_supported="GPU is lost")


def samples(*values):
    return [Sample(t_s=float(i), readings={"gpu_used_mib": v}) for i, v in enumerate(values)]


def test_the_area_is_a_trapezoid_over_the_samples_own_times():
    assert area(Curve(t_s=(0.0, 1.0, 4.0), values=(0.0, 10.0, 20.0))) == 5 + 45


def test_the_area_above_a_tolerance_begins_where_the_line_crosses_it():
    curve = Curve(t_s=(0.0, 1.0, 2.0), values=(0.0, 4.0, 0.0))
    assert area(curve, above=2.0) == pytest.approx(2 * 0.5 * 0.5 * 2)
    assert area(curve, above=4.0) == 0


def test_no_line_is_drawn_over_a_lost_reading():
    curve = curve_of(samples(10.0, 10.0, GONE, 10.0, 10.0), "gpu_used_mib")
    figure = measure(curve)
    assert (figure.area, figure.covered_s, figure.fault) == (20.0, 2.0, "GPU is lost")


def test_a_column_without_a_reading_is_not_supported_and_not_zero():
    assert measure(curve_of(samples(GONE, GONE), "gpu_used_mib")) == GONE
    assert isinstance(measure(curve_of([], "gpu_used_mib")), Unsupported)


def test_why_there_is_no_area_above_the_tolerance_is_told():
    for seen, reason in ((samples(GONE, GONE), "GPU is lost"), ([], "not measured")):
        excess = excess_of(seen, record_of(seen, 9.0), Tolerances())
        assert excess.gpu_area_trapezoid_mib_s == Unsupported(not_supported=reason)


def test_a_column_that_begins_late_has_no_fault():
    late = [Sample(t_s=0.0, readings={}), *samples(1.0, 2.0)[1:]]
    assert measure(curve_of(late, "gpu_used_mib")).fault is None


@pytest.mark.parametrize(("value", "expected"), [(10.0, 0.0), (15.0, 0.0), (17.5, 2.5)])
def test_only_what_exceeds_the_tolerance_counts(value, expected):
    assert over(value, 15.0) == expected
    assert over(GONE, 15.0) == GONE


def test_flare22_counts_memory_above_2048_mib_sample_by_sample():
    assert official_area_over([2000, 2048, 3048], 2048, 0.1) == pytest.approx(100)
    assert isinstance(official_area_over([], 2048, 0.1), Unsupported)


curves = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1e4)), min_size=2, max_size=60).map(
    lambda steps: Curve(
        t_s=tuple(itertools.accumulate(gap for gap, _ in steps)),
        values=tuple(value for _, value in steps),
    )
)


@pytest.mark.long
@given(curve=curves, tolerance=st.floats(0, 1e4))
def test_areas_above_and_below_a_tolerance_make_the_whole(curve, tolerance):
    most = max(curve.values)
    turned = Curve(t_s=curve.t_s, values=tuple(most - value for value in curve.values))
    span = curve.t_s[-1] - curve.t_s[0]
    tolerance = min(tolerance, most)
    # what lies below the tolerance is the box less the turned curve's part above its complement
    below = tolerance * span - area(turned, above=most - tolerance)
    assert area(curve, above=tolerance) + below == pytest.approx(area(curve), rel=1e-6, abs=1e-3)


@given(curve=curves, most=st.integers(4, 30))
def test_thinning_keeps_both_ends_the_peak_and_the_dip(curve, most):
    few = thinned(curve, most)
    assert (few.t_s[0], few.t_s[-1]) == (curve.t_s[0], curve.t_s[-1])
    assert max(few.values) == max(curve.values)
    assert min(few.values) == min(curve.values)
    assert len(few.values) <= most + 3
