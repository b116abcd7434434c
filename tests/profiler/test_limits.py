from __future__ import annotations

from dataclasses import replace

from flarekit.core.readings import Unsupported
from flarekit.profiler.limits import (
    Limits,
    is_broken,
    judge,
)
from tests.profiler.made import made_case, made_report

GONE = Unsupported(not_supported="no driver")


def broken(report, limits):
    return [verdict.text for verdict in judge(report, limits) if is_broken(verdict, limits)]


def test_a_case_within_every_limit_breaks_none():
    assert broken(made_report(made_case()), Limits(ram_mib=1000)) == []


def test_every_limit_that_a_case_breaks_is_named_with_its_figure():
    case = made_case(time_s=62.5, gpu=(100.0, 4700.0), failures=("exit code 3",))
    report = made_report(case, made_case("b_0000"))
    limits = Limits(time_s=15, cap_s=60, gpu_mib=4096, ram_mib=505)
    verdicts = [verdict for verdict in judge(report, limits) if is_broken(verdict, limits)]
    assert {verdict.case for verdict in verdicts} == {"a_0000", "b_0000"}
    assert [verdict.text for verdict in verdicts if verdict.case == "a_0000"] == [
        "exit code 3",
        "time 62.50 s, hard limit 60 s",
        "time 62.50 s, limit 15 s",
        "GPU memory 4700 MiB, limit 4096 MiB",
        "memory 510.00 MiB, limit 505 MiB",
    ]


def test_exactly_the_limit_is_within_it():
    assert broken(made_report(made_case(time_s=15.0, gpu=(4096.0,))), Limits()) == []


def test_what_was_not_measured_breaks_only_a_limit_that_was_asked_for():
    report = made_report(made_case(gpu=(GONE, GONE)))
    assert broken(report, Limits()) == []
    asked = replace(Limits(), required=frozenset({"gpu"}))
    assert broken(report, asked) == ["GPU memory not measured: no driver"]


def test_the_container_s_memory_counts_where_there_is_one():
    case = made_case()
    container = replace(case.measured["tree_rss_mib"], maximum=2000.0)
    both = replace(case, measured={**case.measured, "cgroup_working_mib": container})
    assert (case.ram_mib, both.ram_mib) == (520.0, 2000.0)


def measured(case, **maxima):
    """Return the case with these columns' maxima."""
    like = case.measured["tree_rss_mib"]
    columns = {name: replace(like, maximum=value) for name, value in maxima.items()}
    return replace(case, measured={**case.measured, **columns})


def test_a_peak_between_two_samples_counts_less_the_page_cache_in_it():
    sampled = {"cgroup_working_mib": 30.0, "cgroup_cache_mib": 5.0}
    spike = measured(made_case(), **sampled, cgroup_peak_mib=180.0)
    assert (spike.sampled_ram_mib, spike.kernel_peak_mib, spike.ram_mib) == (30, 180, 175)
    assert broken(made_report(spike), Limits(ram_mib=100)) == ["memory 175.00 MiB, limit 100 MiB"]
    cached = measured(made_case(), cgroup_working_mib=30.0, cgroup_cache_mib=800.0,
                      cgroup_peak_mib=820.0)  # fmt: skip
    assert cached.ram_mib == 30
    assert measured(made_case(), **sampled).ram_mib == 30


def test_gpu_memory_of_other_processes_is_not_charged():
    case = measured(made_case(), gpu_used_mib=6000.0, gpu_charged_mib=3500.0)
    assert case.others_gpu_mib == 2500
    assert broken(made_report(case), Limits()) == []
    more = measured(case, gpu_charged_mib=4200.0)
    assert broken(made_report(more), Limits()) == ["GPU memory 4200 MiB, limit 4096 MiB"]
    assert made_case().others_gpu_mib == 0
