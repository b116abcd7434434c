"""Every word that flarekit says: help, errors, log messages and checks, in one text to be read.

    python profiling/words.py > words.txt

Help comes from the command tree; errors from the source: each `raise` with words in it, and
each `fix=`, with file and line, as are messages that are logged and what each check of an image
asserts. What stands in braces, or as %s, is filled in when it is said.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer.main
from typer.core import TyperCommand, TyperGroup

from flarekit.cli.main import app

PACKAGE = Path(__file__).parents[1] / "flarekit"


def help_pages(command: TyperCommand | TyperGroup, path: Sequence[str]) -> Iterator[str]:
    """Yield the help page of a command and of every command below it."""
    context = command.context_class(command, info_name=" ".join(path), terminal_width=100)
    yield command.get_help(context)
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from help_pages(below, [*path, name])


def messages(source: Path) -> Iterator[tuple[int, str]]:
    """Yield line and words of what a module says: errors, remedies, log messages, checks."""
    within: set[ast.AST] = set()  # remedies that were said with their error
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):  # errors before them
        if node in within:
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            words = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
            within.update(ast.walk(node.exc))
        elif isinstance(node, ast.keyword) and node.arg == "fix":
            words = [node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_LOG."):
            words = node.args[:1]
        elif isinstance(node, ast.FunctionDef) and _is_check(node):
            words = [ast.Constant(ast.get_docstring(node))]
        else:
            continue
        said = [spelled(each) for each in words]
        if any(said):
            at = node.value if isinstance(node, ast.keyword) else node
            yield at.lineno, " | ".join(said)


def _is_check(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(each).startswith("check(") for each in function.decorator_list)


def spelled(node: ast.expr) -> str:
    """Return the words of an expression, with its values in braces; empty for what is not text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(spelled(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value) + "}"
    return ""


def main() -> None:
    """Print all of it."""
    for page in help_pages(typer.main.get_command(app), ["flarekit"]):
        sys.stdout.write(page + "\n\n" + "-" * 100 + "\n")
    for source in sorted(PACKAGE.rglob("*.py")):
        for line, words in sorted(set(messages(source))):
            sys.stdout.write(f"{source.relative_to(PACKAGE)}:{line}: {words}\n")


if __name__ == "__main__":
    main()
