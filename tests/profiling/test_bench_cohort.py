"""What the driver of a cohort costs, small and once."""

from __future__ import annotations

import json
import subprocess
import sys

import bench_cohort
import pytest


def test_the_driver_s_cost_and_memory_are_measured():
    (row,) = bench_cohort.driver_cost([200])
    assert 0 < row["ms_per_case"] < 50
    assert row["cases"] == 200


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_the_whole_script_runs_on_ray(tmp_path):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    line = [sys.executable, bench_cohort.__file__, "--quick", "--output", str(tmp_path)]
    subprocess.run(line, check=True, capture_output=True)  # workers know it as the main script
    result = json.loads((tmp_path / "cohort.json").read_text())
    assert result["scaling"][0]["nodes"] == 1
    assert 0 < result["scaling"][0]["efficiency"] <= 1.01
