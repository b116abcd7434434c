"""Tables of the commands and their options, from the commands: docs/commands.md, docs/options.md.

python profiling/commands.py            write both pages
python profiling/commands.py --check    say whether they are as the commands are
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperCommand, TyperGroup

from flarekit.cli.help import GROUPS, SECTIONS, example_of, long_name
from flarekit.cli.main import app

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = """# Commands

`flarekit COMMAND --help` explains a command and its options in full. Options that several commands
have are listed in [Options](options.md). Both pages are written by `profiling/commands.py` from the
commands; a test compares them.
"""
OPTIONS = """# Options

An option, or a letter, means the same in every command. This page lists the options that several
[commands](commands.md) have; `flarekit COMMAND --help` explains them.
{exceptions}
"""


def commands(
    group: TyperGroup | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, TyperCommand]]:
    """Yield every command with its full name, sorted."""
    group = group or typer.main.get_group(app)
    for name, command in sorted(group.commands.items()):
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        elif not command.hidden:
            yield " ".join((*path, name)), command


def options(command: TyperCommand) -> Iterator[Any]:
    """Yield the options of a command that its help shows."""
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield parameter


def section_of(name: str) -> str:
    """Return the title of the section of the program's help that has a command."""
    listed = {
        each.replace("_", " "): title for title, own in SECTIONS.items() for each in own.split()
    }
    return listed[name] if name in listed else listed[name.split()[0]]


def commands_page() -> str:
    """Return the text of docs/commands.md."""
    lines = [COMMANDS]
    for title in SECTIONS:
        lines += [f"## {title}", "", "| command | does | example |", "|---|---|---|"]
        for name, command in commands():
            if section_of(name) == title:
                first = (command.help or "").split("\n\n")[0].replace("\n", " ").strip()
                lines.append(f"| `{name}` | {first} | `flarekit {example_of(name, command)}` |")
        lines.append("")
    return "\n".join(lines)


def _exceptions() -> str:
    """Return which options take a value in some commands and none in others."""
    kinds = defaultdict[str, dict[bool, list[str]]](dict)
    for name, command in commands():
        for option in options(command):
            kinds[long_name(option)].setdefault(option.is_flag, []).append(name)
    return "\n".join(
        f"`{option}` takes a path with `{'` and `'.join(of[False])}`, and no value elsewhere."
        for option, of in kinds.items()
        if len(of) > 1
    )


def options_page() -> str:
    """Return the text of docs/options.md."""
    users, letters = defaultdict[str, list[str]](list), dict[str, str]()
    for name, command in commands():
        for option in options(command):
            users[long_name(option)].append(name)
            letters |= {
                each: long_name(option) for each in option.opts if not each.startswith("--")
            }
    lines = [OPTIONS.format(exceptions=_exceptions()), "| letter | option |", "|---|---|"]
    lines += [f"| `{letter}` | `{option}` |" for letter, option in sorted(letters.items())]
    lines += ["", "`-h`, `--help` and, for the program, `--version` are everywhere.", ""]
    for title, names in GROUPS.items():
        shared = [name for name in names.split() if len(users[name]) > 1]
        if shared:
            lines += [f"## {title}", "", "| option | commands |", "|---|---|"]
            lines += [f"| `{name}` | {', '.join(users[name])} |" for name in shared]
            lines.append("")
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Return every page that is written here, with its text."""
    return {DOCS / "commands.md": commands_page(), DOCS / "options.md": options_page()}


def main() -> None:
    for path, text in pages().items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
            print(path)
        elif path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{path}: is not as the commands are")


if __name__ == "__main__":
    main()
