"""Options that are numbers take numbers: NaN passes every bound that it is compared with."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app

COMMANDS = [
    "serve --keep-hours",
    "serve --max-upload-gb",
    "train compact recipe.toml dataset run --minutes",
    "train locator predictor scans run --minutes",
    "train gate predictor dataset --lost",
    "evaluate interactive image --truth labels --time-limit",
    "verify image --timeout",
    "profile docker image -i scans -o masks --report report --timeout",
    "profile check report --max-time",
    "profile check report --max-gpu-mib",
    "cohort run -i scans -o masks --report report --case-timeout",
    "cohort run -i scans -o masks --report report --cpus-per-worker",
    "predict -i scans -o masks --time-budget",
]


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_is_no_finite_number_is_refused_by_its_name(command, odd):
    *words, option = command.split()
    result = CliRunner().invoke(app, [*words, f"{option}={odd}"])
    assert result.exit_code == 2, result.output
    assert option in result.stderr
    assert "Traceback" not in result.stderr


def test_a_finite_number_is_taken(tmp_path):
    line = f"train gate {tmp_path} {tmp_path} --lost 0.5"
    result = CliRunner().invoke(app, line.split())
    assert "finite" not in result.output
    assert "predictor" in str(result.exception)
