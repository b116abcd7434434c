"""What `flarekit verify` shows."""

from __future__ import annotations

import json
import re

import typer
from rich.console import Console as RichConsole
from rich.markup import escape

from flarekit.cli.console import Console
from flarekit.core.errors import UsageError
from flarekit.images.verify import Verdict, VerifyRequest, verify

_LEAST_MIB = 6  # of Docker
_MARKS = {
    "pass": "[green]pass[/green]",
    "fail": "[bold red]fail[/bold red]",
    "warn": "[yellow]warn[/yellow]",
    "skip": "[dim]skip[/dim]",
}


def run_verify(request: VerifyRequest, console: Console, *, as_json: bool) -> int:
    """Check an image, show every verdict, and return the exit code."""
    table = RichConsole(highlight=False, soft_wrap=True)

    def show(verdict: Verdict) -> None:
        check, finding = verdict.check, verdict.finding
        if as_json:
            console.say(f"{finding.state}  {check.name}")
            return
        reason = f": {escape(finding.reason)}" if finding.reason else ""
        table.print(f"{_MARKS[finding.state]}  [bold]{check.name}[/bold]  {check.asserts}{reason}")
        if verdict.fix:
            table.print(f"      to do: {escape(verdict.fix)}")

    verification = verify(request, progress=show)
    if as_json:
        typer.echo(json.dumps(verification.as_json(), indent=2))
    states = [verdict.finding.state for verdict in verification.verdicts]
    console.say(
        f"{verification.image}, {verification.convention}, in {verification.sandbox}: "
        + ", ".join(f"{states.count(state)} {state}" for state in _MARKS if state in states)
    )
    return 0 if verification.passed else 1


def memory_mib(text: str | None) -> int | None:
    """Return MiB of an amount of memory as docker run takes it: `28g`, `2048m`, bytes.

    Raises:
        UsageError: it is no such amount.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)b?", text.strip().lower())
    shift = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
    mib = 0 if match is None else int(float(match[1]) * 2 ** shift[match[2]] / 2**20)
    if mib < _LEAST_MIB:
        raise UsageError(
            f"--memory {text!r} is no amount of memory",
            fix=f"write 28g, or 2048m; {_LEAST_MIB}m at least",
        )
    return mib


def numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the values of a list like `1,2,5`.

    Raises:
        UsageError: it is no such list.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} are no label values", fix="give them like 1,2,5") from None
