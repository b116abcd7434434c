"""How help pages read: an example for every command, and options in the same groups everywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# what is typed, by the command's name; the rest of it stands before each
EXAMPLES = {
    "arrange": "ct_0000.nii.gz pet_0001.nii.gz --convention autopet -o input",
    "build": "-p abdomen_ct -t team --cpu",
    "cohort merge": "report/shard_1 report/shard_2 -o report",
    "cohort report": "report",
    "cohort run": "-i scans -o masks --report report --workers 4",
    "collect": "masks --arranged input -o collected",
    "compile": "abdomen_ct",
    "conventions": "autopet",
    "demo": "-o demo",
    "doctor": "",
    "evaluate": "--pred masks --truth labels --csv scores.csv",
    "job": "-i /input -o /output",
    "predict": "-i scans -o masks",
    "predictors": "",
    "profile check": "report --preset flare23",
    "profile compare": "report_before report_after",
    "profile docker": "team:latest -i scans -o masks --report report",
    "profile report": "report",
    "profile run": "-o report -- python my_segmentation.py",
    "save": "team -o team.tar.gz",
    "serve": "--port 8000",
    "statistics": "--masks masks --scans scans -o tables",
    "submit": "my-algorithm -i case -o outputs",
    "train compact": "recipe.toml Dataset001_Liver run --minutes 60",
    "train expected": "weights/liver Dataset001_Liver",
    "train export": "run weights/liver",
    "train gate": "weights/lesion Dataset002_Lesions",
    "train init": "Dataset001_Liver -o recipe.toml",
    "train locator": "weights/liver scans run_locator --minutes 40",
    "train plan": "Dataset001_Liver work -a nnunet",
    "train recipes": "",
    "train run": "work -a nnunet --fold 0",
    "verify": "team:latest",
    "weights import": "Dataset001_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres --name liver",
    "weights pack": "abdomen_ct -o model.tar.gz",
    "weights verify": "",
}
# the program's commands in the order of their use, in sections of its help
SECTIONS = {
    "Segmenting scans": (
        "predict demo predictors conventions doctor serve cohort statistics compile"
    ),
    "Entering a challenge": (
        "arrange collect build verify save profile evaluate evaluate_interactive submit job"
    ),
    "Networks": "train weights",
}
# where an option stands, by its long name, whichever command has it
GROUPS = {
    "What goes in and out": (
        "--input --output --predictor --convention --preset --labels --also --probabilities "
        "--trust --pred --truth --images --masks --scans --arranged --channels --socket --tag "
        "--format --name --force --recipe --start --material --negatives --cases"
    ),
    "What computes, and how": (
        "--mode --engine --device --precision --mirroring --locator --deterministic --gpus --gpu "
        "--cuda --cpu --processes --workers --minutes --architecture --configuration --fold "
        "--folds --epochs --iterations --sandbox"
    ),
    "Limits": (
        "--time-budget --gpu-memory-budget --ram-budget --timeout --time-limit --memory "
        "--shm-size --max-time --max-gpu-mib --max-ram-mib --gpu-memory --case-timeout "
        "--memory-per-worker --retries --max-upload-gb --queue"
    ),
    "Records and going on": (
        "--report --pictures --resume --retry-failed --shard --on-error --json --csv --stages"
    ),
    "Messages": "--verbose --quiet --version --help --install-completion --show-completion",
}
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

    def command(self, *names: Any, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        """Register a command; see `typer.Typer.command`."""
        return super().command(*names, **{"cls": Command, **settings})


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
