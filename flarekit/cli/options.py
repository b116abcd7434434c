"""Options that several commands share, and how a command takes its options as one dataclass.

Nothing heavy is imported here, so that `--help` is instant.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from flarekit.core.errors import UsageError

_LEAST_MIB = 6  # of Docker


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses: each field becomes an option, in the dataclass's place.

    A field's `Annotated` type says what the option is, as a parameter's would, and its name is that
    of the request's field. So `Request(**vars(options))` makes the request of a command's options.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            kind, hint = inspect.Parameter.KEYWORD_ONLY, hints[parameter.name]
            parameters.append(parameter.replace(kind=kind, annotation=hint))

    @wraps(command)
    def with_fields(**values: Any) -> None:  # noqa: ANN401 - whatever the options are
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        command(**values)

    with_fields.__dict__["__signature__"] = inspect.Signature(parameters)
    with_fields.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_fields


def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]


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


def memory_option(text: str) -> Any:  # noqa: ANN401 - typer's own type is private
    """Return the option --memory, an amount that becomes MiB, with a help text."""
    return typer.Option("--memory", parser=memory_mib, metavar="<str>", help=text)


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


Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more, and show tracebacks of errors.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
InputDir = Annotated[Path, typer.Option("--input", "-i", help="Folder with the scans.")]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        help="A folder with scans, a scan (.nii.gz, .nii, .mha, .nrrd), DICOM, or a zip or tar of "
        "such; may be given several times.",
    ),
]
MoreInputs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[INPUT]...", help="Further inputs, as -i *.nii.gz makes them."),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the masks, or the file of the only one.")
]
OutputDir = Annotated[Path, typer.Option("--output", "-o", help="Folder for the masks.")]
Predictor = Annotated[
    str,
    typer.Option(
        "--predictor",
        "-p",
        envvar="FLAREKIT_PREDICTOR",
        autocompletion=_predictors,
        help="A name (see `flarekit predictors`) or a predictor folder.",
    ),
]
Convention = Annotated[
    str | None,
    typer.Option(
        "--convention",
        "-c",
        envvar="FLAREKIT_CONVENTION",
        autocompletion=_conventions,
        help="Convention of the input and output folders; by default the predictor's own.",
    ),
]
ImageConvention = Annotated[
    str | None,
    typer.Option(
        "--convention",
        "-c",
        help="Convention of the image; by default the one that its label names.",
    ),
]


def _also(text: str) -> tuple[str, ...]:
    """Return what is written besides masks, of a list like `rtstruct,nifti`."""
    wanted = names(text) if text else ()
    unknown = sorted(set(wanted) - {"rtstruct", "nifti"})
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: rtstruct and nifti are known")
    return wanted


Also = Annotated[
    Any,
    typer.Option(
        parser=_also,
        metavar="rtstruct,nifti",
        help="DICOM: what each mask is written as besides a segmentation object: contours (RT "
        "structure set), NIfTI, or both.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help=(
            "auto, cpu, cuda, cuda:N or a UUID. Several (cuda:0,cuda:1) share the cases. A "
            "device that is asked for and not there is an error."
        )
    ),
]
OneDevice = Annotated[
    str,
    typer.Option(
        help=(
            "auto, cpu, cuda, cuda:N or a UUID. A device that is asked for and not there is an "
            "error."
        )
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        help=(
            "auto takes fp16 on CUDA, bf16 on a CPU that computes in it, and fp32 otherwise, "
            "but none that the network overflows in."
        )
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        envvar="FLAREKIT_TRUST",
        help="Let a predictor folder execute what it names: a module of its own, or TorchScript.",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        help=(
            "GPUs that the container sees, as docker run takes them (all, or device=0,1); by "
            "default none."
        )
    ),
]
Sandbox = Annotated[
    Literal["auto", "docker", "process"],
    typer.Option(
        "--sandbox",
        help=(
            "What runs the image: Docker, or processes in bubblewrap; auto takes Docker where"
            " an engine answers."
        ),
    ),
]
Folds = Annotated[  # a parser gives the type, which typer cannot tell from an annotation
    Any,
    typer.Option(
        parser=names,
        metavar="<str>",
        help=(
            "Folds of an nnU-Net result to use, for example 0,1,2; by default all that are there."
        ),
    ),
]
Checkpoint = Annotated[
    str, typer.Option(help="File name of the checkpoint inside a fold of an nnU-Net result.")
]
CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What computes."""

    device: Device = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class Messages:
    """How much a run says; see `flarekit.cli.console.Console`."""

    verbose: Verbose = False
    quiet: Quiet = False


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a case may cost."""

    time_budget_s: Annotated[
        Any,
        typer.Option(
            "--time-budget",
            envvar="FLAREKIT_TIME_BUDGET",
            parser=_limit("convention"),
            metavar="SECONDS|convention",
            help=(
                "Seconds that a case may take; the last line says what was given up for it. "
                "The word convention stands for what the organiser tolerates. By default, and"
                " with 0, there is no limit."
            ),
        ),
    ] = None
    gpu_memory_budget_mib: Annotated[
        Any,
        typer.Option(
            "--gpu-memory-budget",
            envvar="FLAREKIT_GPU_MEMORY_BUDGET",
            parser=_limit("convention"),
            metavar="MIB|convention",
            help=(
                "MiB that may be in use on the GPU. The word convention stands for what the "
                "organiser tolerates. By default, and with 0, there is no limit."
            ),
        ),
    ] = None
    ram_budget_mib: Annotated[
        Any,
        typer.Option(
            "--ram-budget",
            envvar="FLAREKIT_RAM_BUDGET",
            parser=_limit("container"),
            metavar="MIB|container",
            help=(
                "MiB of memory that the run may use; what does not fit is refused. The word "
                "container stands for the limit of the container around it. By default, and "
                "with 0, there is no limit."
            ),
        ),
    ] = None
