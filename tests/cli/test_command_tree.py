"""All commands: the same letter and the same name mean the same, and every help has an example."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from flarekit.cli.console import Console
from flarekit.cli.help import EXAMPLES, GROUPS, SECTIONS, example_of, long_name
from flarekit.cli.main import app
from tests.command import COMMAND, run

ROOT = Path(__file__).parents[2]
LETTERS = {
    "-a": "--architecture",
    "-c": "--convention",
    "-i": "--input",
    "-o": "--output",
    "-p": "--predictor",
    "-q": "--quiet",
    "-t": "--tag",
    "-v": "--verbose",
}
ANY_TYPE = {"--json", "--pictures"}  # docs/options.md says where they take a path


def _page():
    path = ROOT / "profiling" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = _page()
COMMANDS = dict(PAGE.commands())


def all_options():
    for name, command in COMMANDS.items():
        for option in PAGE.options(command):
            yield name, option


def test_a_letter_means_the_same_option_in_every_command():
    letters = {
        (each, long_name(option), name)
        for name, option in all_options()
        for each in option.opts
        if re.fullmatch("-[A-Za-z]", each)
    }
    assert {letter for letter, *_ in letters} == set(LETTERS)
    assert [each for each in letters if LETTERS[each[0]] != each[1]] == []


def test_an_option_that_has_a_letter_has_it_in_every_command():
    short = {option: letter for letter, option in LETTERS.items()}
    for name, option in all_options():
        if long_name(option) in short:
            assert short[long_name(option)] in option.opts, f"{name}: {long_name(option)}"


def test_an_option_takes_the_same_kind_of_value_in_every_command():
    kinds = defaultdict(lambda: defaultdict(list))
    for name, option in all_options():
        kinds[long_name(option)][option.is_flag].append(name)
    mixed = {name: dict(each) for name, each in kinds.items() if len(each) > 1}
    assert set(mixed) <= ANY_TYPE, mixed


def test_gpus_are_named_as_docker_run_names_them_wherever_they_are():
    helps = {option.help for _, option in all_options() if long_name(option) == "--gpus"}
    assert len(helps) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_its_own_parser_takes(name):
    said = run(*name.split(), "--help")
    command = COMMANDS[name]
    example = example_of(name, command)
    assert example is not None
    assert f"Example:\n  flarekit {example}\n" in said.stdout
    assert said.stdout.count("Example:") == 1
    words = shlex.split(example.removeprefix(name))
    context = command.make_context(name, list(words), resilient_parsing=True)
    known = {each for option in command.params for each in (*option.opts, *option.secondary_opts)}
    before = words[: words.index("--")] if "--" in words else words
    assert {word for word in before if word.startswith("-")} <= known
    assert not context.args


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_in_a_sentence_what_it_does(name):
    first = (COMMANDS[name].help or "").split("\n\n")[0].strip()
    assert first.endswith(".")
    assert first[0].isupper()


def test_every_option_and_argument_says_what_it_is():
    for name, command in COMMANDS.items():
        for parameter in command.params:
            assert (parameter.help or "").endswith((".", "...")), f"{name}: {parameter.name}"


def test_options_stand_in_groups_and_messages_last():
    said = run("predict", "--help").stdout
    titles = [title for title in GROUPS if f"\n{title}:\n" in said]
    assert len(titles) >= 4
    places = [said.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places)


def test_an_option_has_one_place():
    names = [name for group in GROUPS.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert set(EXAMPLES) <= set(COMMANDS)


@pytest.mark.parametrize("path", PAGE.pages(), ids=lambda path: path.name)
def test_the_pages_of_commands_are_as_the_commands_are(path):
    assert path.read_text() == PAGE.pages()[path], "run: python profiling/commands.py"


def test_the_program_lists_every_command_once_in_a_section():
    listed = [name.replace("_", " ") for names in SECTIONS.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    said = run("--help").stdout
    assert [line for line in said.splitlines() if line.rstrip(":") in SECTIONS] == [
        f"{title}:" for title in SECTIONS
    ]
    for name in listed:
        assert re.search(rf"^  {name}  ", said, re.MULTILINE), name


def test_training_is_listed_in_the_order_of_its_use():
    said = run("train", "--help").stdout
    places = [said.index(f"\n  {name} ") for name in ("init", "compact", "export")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("flarekit pre", "predict"),
        pytest.param("flarekit train i", "init", marks=pytest.mark.long),
        pytest.param("flarekit predict --prob", "--probabilities", marks=pytest.mark.long),
        pytest.param("flarekit predict -p mpu", "mpu_net_liver", marks=pytest.mark.long),
        pytest.param("flarekit predict -c uls", "uls23", marks=pytest.mark.long),
    ],
)
def test_the_shell_completes_commands_options_and_names(typed, wanted):
    words = typed.split()
    environment = {
        **os.environ,
        "_FLAREKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    said = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert wanted in said.stdout.split(), said.stderr


def on_terminal(code, **environment):
    """Run Python with a terminal for its output; return what it wrote there."""
    reading, writing = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=writing,
        stderr=writing,
        env={**plain, "TERM": "xterm-256color", **environment},
    )
    os.close(writing)
    said = b""
    while True:
        try:
            part = os.read(reading, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    child.wait()
    os.close(reading)
    return said.decode()


SPINNING = """
from flarekit.cli.console import Console
console = Console(quiet={quiet})
with console.spinner("building"):
    console.say("a line")
with console.bar("cases") as progress:
    progress(1, 3)
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-9])[0-9;]*m")


def test_a_terminal_sees_a_spinner_and_a_bar_in_colour():
    said = on_terminal(SPINNING.format(quiet=False))
    assert "building" in said
    assert "1/3" in said
    assert COLOUR.search(said)


@pytest.mark.long
def test_no_color_leaves_the_colours_out():
    said = on_terminal(SPINNING.format(quiet=False), NO_COLOR="1")
    assert "building" in said
    assert not COLOUR.search(said)


def test_quiet_or_without_a_terminal_there_is_neither(capsys):
    assert on_terminal(SPINNING.format(quiet=True)) == ""
    console = Console()
    with console.spinner("building"), console.bar("cases") as progress:
        progress(1, 3)
    assert capsys.readouterr().err == ""


def test_the_app_s_help_still_answers_where_a_group_is_called_alone():
    assert app.info.name == "flarekit"
    assert "Commands" in run("train", "--help").stdout
