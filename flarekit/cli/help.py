"""How help pages read: an example for every command, and options in the same groups everywhere."""

import copy
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from flarekit.cli.options import WORDS, spread

EXAMPLES: dict[str, str] = WORDS["examples"]
SECTIONS: dict[str, str] = WORDS["sections"]
GROUPS: dict[str, str] = WORDS["groups"]
_PLACES = {name: group for group, names in GROUPS.items() for name in names.split()}
_OTHERS = "Further options"
_STATED = re.compile(r"\n\s*Example: (.+?)\s*(?=\n\s*\n|$)", re.DOTALL)
Record = tuple[str, str]


class Command(TyperCommand):
    """A command whose help has an example and options in groups, and whose numbers are numbers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Click's
        """Refuse NaN and infinity, which pass every bound that is compared with them."""
        rest = super().parse_args(ctx, args)
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(
                    f"{value} is not a finite number.", ctx=ctx, param=parameter
                )
        return rest

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Click's
        """Write what the command does, and an example of it."""
        words, self.help = self.help, _STATED.sub("", self.help or "")
        super().format_help_text(ctx, formatter)
        self.help = words
        program, _, name = ctx.command_path.partition(" ")
        example = example_of(name, self)
        if example is None:
            return
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{program} {example}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Click's
        """Write arguments, then the options group by group."""
        for title, records in _grouped(self.get_params(ctx), ctx):
            with formatter.section(title):
                formatter.write_dl(records)


def _grouped(parameters: list[Any], ctx: Any) -> Iterator[tuple[str, list[Record]]]:  # noqa: ANN401
    titles = ["Arguments", *GROUPS, _OTHERS]
    found: dict[str, list[Record]] = {title: [] for title in titles}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            found["Arguments"].append(record)
        else:
            found[_PLACES.get(long_name(parameter), _OTHERS)].append(record)
    messages = "Messages"
    for title in [each for each in titles if each != messages] + [messages]:
        if found[title]:
            yield title, found[title]


def example_of(name: str, command: TyperCommand) -> str | None:
    """Return what is typed behind the program's name; None where there is no example.

    Args:
        name: of the command, with the group's before it.
        command: whose docstring may have a paragraph that begins with `Example:` instead.
    """
    if name in EXAMPLES:
        return f"{name} {EXAMPLES[name]}".strip()
    stated = _STATED.search(command.help or "")
    return None if stated is None else " ".join(stated[1].split()).removeprefix("flarekit ")


def _first(command: Any) -> str:  # noqa: ANN401 - Click's
    """Return the first paragraph of what a command says of itself."""
    return " ".join((command.help or "").split("\n\n")[0].split())


def long_name(parameter: Any) -> str:  # noqa: ANN401 - Click's
    """Return an option's name in full, `--output` say."""
    return str(max(parameter.opts, key=len))


class App(typer.Typer):
    """Commands whose help reads alike; rich's own help takes as long to load as all the rest."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - Typer's own
        usual = {"no_args_is_help": True, "rich_markup_mode": None, "add_completion": False}
        super().__init__(**{**usual, **settings})

    def only(self, word: str) -> "App":
        """Return a program that has only the commands which begin with a word.

        Typer builds every option of every command before it looks which one is asked for. Where no
        command begins with the word, the whole program is returned, and says what there is.
        """
        commands = [each for each in self.registered_commands if _word(each) == word]
        groups = [each for each in self.registered_groups if each.name == word]
        if not commands and not groups:
            return self
        some = copy.copy(self)
        some.registered_commands, some.registered_groups = commands, groups
        return some

    def command(self, *names: Any, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        """Register a command, whose options are spread; see `typer.Typer.command`."""
        register = super().command(*names, **{"cls": Command, **settings})
        return lambda function: register(spread(function))


def _word(command: Any) -> str:  # noqa: ANN401 - Typer's
    name: str = command.name or command.callback.__name__.rstrip("_").replace("_", "-")
    return name.split()[0]


class Program(TyperGroup):
    """All commands, listed in sections; some have two words, the first of which is one too."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Click's
        """Return the names of all commands, in the order of the sections."""
        order = [name.replace("_", " ") for names in SECTIONS.values() for name in names.split()]
        return sorted(super().list_commands(ctx), key=order.index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - Click's
        """Write what each command does, section by section, in whole sentences."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                listed = [name.replace("_", " ") for name in names.split()]
                formatter.write_dl([(name, _first(self.commands[name])) for name in listed])

    def resolve_command(
        self,
        ctx: Any,  # noqa: ANN401 - click's, which typer brings
        args: list[str],
    ) -> Any:  # noqa: ANN401
        """Return the command that the first word, or the first two, name."""
        words = " ".join(args[:2])
        if len(args) > 1 and words in self.commands:
            args = [words, *args[2:]]
        return super().resolve_command(ctx, args)
