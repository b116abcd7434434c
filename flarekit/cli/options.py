"""What commands take: dataclasses whose fields are options, and what options.toml says of these.

Nothing heavy is imported here, so that `--help` is instant.
"""

import inspect
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from flarekit.core.errors import UsageError

WORDS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_LEAST_MIB = 6  # of Docker


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses: each field becomes an option, in the dataclass's place.

    What an option is called and what its help says stands in options.toml, in the table of its
    dataclass or command, or in `[shared]`; an `Annotated` type may say it as well. A field's name
    is that of the request's field. So `Request(**vars(options))` makes the request of a command's
    options.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name], command)
        else:
            hint = _stated(hints[parameter.name], parameter.name, [command])
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind, annotation=hint))

    @wraps(command)
    def with_fields(**values: Any) -> None:  # noqa: ANN401 - whatever the options are
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        command(**values)

    with_fields.__dict__["__signature__"] = inspect.Signature(parameters)
    with_fields.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_fields


def _parameters_of(group: type[Any], command: Callable[..., None]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=_stated(hints[each.name], each.name, [command, *group.__mro__]),
        )
        for each in fields(group)
    ]


def _stated(hint: Any, name: str, owners: Sequence[Any]) -> Any:  # noqa: ANN401 - any type
    """Return a type with what options.toml says of the option; itself where nothing is said.

    Args:
        hint: `Annotated` with the name of an entry in `[shared]`, or with typer's own, or plain.
        name: of the field or parameter.
        owners: whose it is: the command, then a dataclass and those that it extends.
    """
    kind, entry = hint, WORDS["shared"].get(name)
    if get_origin(hint) is Annotated:
        kind, noted = get_args(hint)[:2]
        if not isinstance(noted, str):
            return hint
        entry = WORDS["shared"][noted]
    for owner in reversed(owners):
        module = WORDS.get(owner.__module__.rpartition(".")[2], {})
        entry = module.get(owner.__name__, {}).get(name, entry)
    if entry is None:
        return hint
    facts = {"help": entry} if isinstance(entry, str) else dict(entry)
    if "parser" in facts:
        facts = {"metavar": "<str>", **facts, "parser": _PARSERS[facts["parser"]]}
    if "autocompletion" in facts:
        facts["autocompletion"] = _COMPLETIONS[facts["autocompletion"]]
    declare = typer.Argument if facts.pop("argument", False) else typer.Option
    own_names = facts.pop("names", "").split()
    return Annotated[kind, declare(*own_names, **facts)]


def memory_mib(text: str) -> int:
    """Return MiB of an amount of memory as docker run takes it: `28g`, `2048m`, bytes.

    Raises:
        UsageError: it is no such amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)b?", text.strip().lower())
    shift = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
    mib = 0 if match is None else int(float(match[1]) * 2 ** shift[match[2]] / 2**20)
    if mib < _LEAST_MIB:
        raise UsageError(
            f"--memory {text!r} is not an amount of memory",
            fix=f"write 28g, or 2048m; {_LEAST_MIB}m at least",
        )
    return mib


def numbers(text: str) -> tuple[int, ...]:
    """Return the values of a list like `1,2,5`.

    Raises:
        UsageError: it is no such list.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} are not label values", fix="give them like 1,2,5") from None


def names(text: str) -> tuple[str, ...]:
    """Return the entries of a list like `0,1,2`, without the spaces around them."""
    return tuple(part.strip() for part in text.split(","))


def _limit(word: str) -> Callable[[str], float | str | None]:
    """Return what reads a limit: a number, 0 for none, or a word for what is tolerated."""

    def limit(text: str) -> float | str | None:
        if text in ("", word):
            return text or None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf:
            raise typer.BadParameter(f"{text!r} is neither a number from 0 on nor {word!r}")
        return value

    return limit


def _predictors(begun: str) -> list[str]:
    """Return the names of predictors that a word on the command line may become."""
    from flarekit.segmentation.predictors import predictor_folders

    return [each.name for each in predictor_folders() if each.name.startswith(begun)]


def _conventions(begun: str) -> list[str]:
    """Return the names of conventions that a word on the command line may become."""
    from flarekit import conventions

    return [name for name in conventions.names() if name.startswith(begun)]


def _also(text: str) -> tuple[str, ...]:
    """Return what is written besides masks, of a list like `rtstruct,nifti`."""
    wanted = names(text) if text else ()
    unknown = sorted(set(wanted) - {"rtstruct", "nifti"})
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: rtstruct and nifti are known")
    return wanted


# what options.toml names; a parser gives the type, which the annotation `Any` leaves to it
_PARSERS: dict[str, Callable[[str], Any]] = {
    "also": _also,
    "memory_mib": memory_mib,
    "names": names,
    "numbers": numbers,
    "number or container": _limit("container"),
    "number or convention": _limit("convention"),
}
_COMPLETIONS = {"predictors": _predictors, "conventions": _conventions}

# by the name of their entry in [shared], where that is not the name of the field
Devices = Annotated[str, "devices"]
ImageConvention = Annotated[str | None, "image_convention"]
Memory = Annotated[Any, "memory"]
Sandbox = Annotated[Literal["auto", "docker", "process"], "sandbox"]
Timeout = Annotated[float | None, "timeout"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What computes."""

    device: Devices = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class Messages:
    """How much a run says; see `flarekit.cli.console.Console`."""

    verbose: bool = False
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a case may cost."""

    time_budget_s: Any = None
    gpu_memory_budget_mib: Any = None
    ram_budget_mib: Any = None
