"""One table of commands and their options, from the commands themselves: docs/commands.md.

python profiling/commands.py            write the page
python profiling/commands.py --check    say whether it is as the commands are
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperCommand, TyperGroup

from flarekit.cli.help import GROUPS, example_of, long_name
from flarekit.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands and options

Every command has this in its own words: `flarekit COMMAND --help`. An option means the same
wherever it stands, and so does a letter. This page is written by `profiling/commands.py` from the
commands; a test compares them.
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


def page() -> str:
    """Return the text of the page."""
    users, letters = defaultdict[str, list[str]](list), dict[str, str]()
    rows = []
    for name, command in commands():
        first = (command.help or "").split("\n\n")[0].replace("\n", " ").strip()
        example = f"flarekit {example_of(name, command)}"
        rows.append(f"| `{name}` | {first} | `{example}` |")
        for option in options(command):
            users[long_name(option)].append(name)
            letters |= {
                each: long_name(option) for each in option.opts if not each.startswith("--")
            }
    lines = [HEAD, "| command | does | example |", "|---|---|---|", *rows, ""]
    lines += ["## Letters", "", "| letter | option |", "|---|---|"]
    lines += [f"| `{letter}` | `{option}` |" for letter, option in sorted(letters.items())]
    lines += ["", "`-h`, `--help` and, for the program, `--version` are everywhere.", ""]
    lines += ["## Options that several commands have", ""]
    for title, names in GROUPS.items():
        shared = [name for name in names.split() if len(users[name]) > 1]
        if shared:
            lines += [f"**{title}**", "", "| option | commands |", "|---|---|"]
            lines += [f"| `{name}` | {', '.join(users[name])} |" for name in shared]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    if "--check" in sys.argv[1:]:
        raise SystemExit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE}: is not so")
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
