"""What `flarekit verify` shows."""

import json

import typer
from rich.console import Console as RichConsole
from rich.markup import escape

from flarekit.cli.console import Console
from flarekit.images.verify import Verdict, VerifyRequest, verify

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

    with console.spinner(f"checking {request.image}"):
        verification = verify(request, progress=show)
    if as_json:
        typer.echo(json.dumps(verification.as_json(), indent=2))
    states = [verdict.finding.state for verdict in verification.verdicts]
    console.say(
        f"{verification.image}, {verification.convention}, in {verification.sandbox}: "
        + ", ".join(f"{states.count(state)} {state}" for state in _MARKS if state in states)
    )
    return 0 if verification.passed else 1
