"""A command takes its options as dataclasses, whose fields become options in their place."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields, is_dataclass
from inspect import signature
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from flarekit.cli import (
    images,
    nnunet_training,
    options,
    profile,
    requests,
    train,
    weights,
)
from flarekit.cli.options import memory_mib, spread
from flarekit.core.errors import UsageError
from flarekit.images.build import BuildRequest
from flarekit.images.submit import Request as SubmitRequest
from flarekit.images.verify import VerifyRequest
from flarekit.importing import ImportOptions
from flarekit.profiler.container import ContainerOptions
from flarekit.segmentation.folder import Options
from flarekit.training.compact import RunOptions
from flarekit.training.nnunet.running import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Drink:
    name: Annotated[str, typer.Argument()]
    size_ml: Annotated[float, typer.Option("--size", help="In ml.")] = 200.0


def command(taken):
    app = typer.Typer()

    @app.command()
    @spread
    def order(table: Annotated[int, typer.Argument()], *, drink: Drink, ice: bool = False) -> None:
        taken.append((table, drink, ice))

    return app


def test_fields_become_options_and_come_back_as_the_dataclass():
    taken = []
    result = CliRunner().invoke(command(taken), ["3", "tea", "--size", "150", "--ice"])
    assert result.exit_code == 0, result.output
    assert taken == [(3, Drink(name="tea", size_ml=150.0), True)]


def test_a_field_s_default_is_the_option_s():
    taken = []
    CliRunner().invoke(command(taken), ["3", "tea"])
    assert taken == [(3, Drink(name="tea"), False)]


def test_a_field_without_a_default_has_to_be_given():
    result = CliRunner().invoke(command([]), ["3"])
    assert result.exit_code == 2
    assert "name" in result.stderr.lower()


@pytest.mark.parametrize(
    ("group", "request_type"),
    [
        (requests.Prediction, Options),
        (options.Budgets, Options),
        (options.Computing, Options),
        (images.Build, BuildRequest),
        (images.Verification, VerifyRequest),
        (images.Submission, SubmitRequest),
        (weights.Import, ImportOptions),
        (train.Export, ImportOptions),
        (train.CompactRun, RunOptions),
        (nnunet_training.FoldRun, TrainOptions),
        (profile.RunLine, ContainerOptions),
    ],
)
def test_every_option_has_its_place_in_the_request(group, request_type):
    places = {each.name for each in fields(request_type)}
    assert {each.name for each in fields(group)} <= places


@pytest.mark.parametrize(
    ("text", "mib"), [("28g", 28 * 1024), ("2048m", 2048), ("6291456", 6), ("1.5GB", 1536)]
)
def test_memory_is_read_as_docker_reads_it(text, mib):
    assert memory_mib(text) == mib


@pytest.mark.parametrize("text", ["much", "5m", "-1g", ""])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(UsageError, match="not an amount of memory"):
        memory_mib(text)


def test_every_table_of_options_is_that_of_a_command_or_a_dataclass_and_its_fields():
    for module, tables in options.WORDS.items():
        if module in ("examples", "sections", "groups", "shared"):
            continue
        place = importlib.import_module(f"flarekit.cli.{module}")
        for owner, entries in tables.items():
            command = getattr(place, owner)
            known = signature(command if is_dataclass(command) else spread(command)).parameters
            assert set(entries) <= set(known), f"{module}.{owner}"
