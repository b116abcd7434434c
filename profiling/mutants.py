"""Single changes of a module's source: an operator, a comparison, a number, a condition.

What `mutation.py` makes, one at a time, to see whether a test notices.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_TYPES = {"NDArray", "Annotated", "Literal", "Callable", "Sequence", "Mapping"}
_TYPES |= {"Iterator", "dict", "list", "set", "tuple", "type"}
_OF_TYPES = {"TypeVar", "cast"}


@dataclass(frozen=True)
class Mutant:
    """A change of one expression or statement.

    Attributes:
        line: where it begins, from 1.
        function: first line of the innermost function around it, decorators included; 0 outside.
        before, after: the source of what is changed.
        declares: whether it is a keyword of a dataclass, which forbids what no code does.
        nth: how many changes of the same text to the same stand before it in the module.
        source: of the whole module, changed.
    """

    line: int
    function: int
    before: str
    after: str
    declares: bool
    nth: int
    source: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Return every change of a module, in the order of its syntax tree."""
    seen: Counter[tuple[str, str]] = Counter()
    for mutant in _walk(ast.parse(source), source, 0, declares=False):
        change = (mutant.before, mutant.after)
        yield replace(mutant, nth=seen[change])
        seen[change] += 1


def _walk(node: ast.AST, source: str, function: int, *, declares: bool) -> Iterator[Mutant]:
    declares |= isinstance(node, ast.Call) and ast.unparse(node.func) == "dataclass"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    for changed, after in _changes(node):
        yield _mutant(source, changed, after, function, declares=declares)
    for child in _expressions(node):
        yield from _walk(child, source, function, declares=declares)


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    """Return a node's children, without those that are types or parts of a text."""
    if isinstance(node, ast.JoinedStr) or _is_type(node):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _is_type(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id in _TYPES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _OF_TYPES
    alias = isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)
    return alias and isinstance(node.value.op, ast.BitOr)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Return what a node is replaced by: the part of it that goes, and the source that comes."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in SWAPPED:
            yield node, f"({ast.unparse(ast.BinOp(left, SWAPPED[type(op)](), right))})"
        case ast.AugAssign(target, op, value) if type(op) in SWAPPED:
            yield node, ast.unparse(ast.AugAssign(target, SWAPPED[type(op)](), value))
        case ast.BoolOp(op, values):
            yield node, f"({ast.unparse(ast.BoolOp(SWAPPED[type(op)](), values))})"
        case ast.Compare(left, [op, *more], values):
            ops = [SWAPPED[type(op)](), *more]
            yield node, f"({ast.unparse(ast.Compare(left, ops, values))})"
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int(value)):
            yield node, str(value + 1)
        case ast.Constant(float(value)):
            yield node, str(value * 1.5 + 0.25)
        case ast.If(test) | ast.IfExp(test):
            yield test, f"(not ({ast.unparse(test)}))"


def _mutant(source: str, node: ast.AST, after: str, function: int, *, declares: bool) -> Mutant:
    lines = source.encode().splitlines(keepends=True)  # columns are counted in bytes
    begin = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    text = source.encode()
    return Mutant(
        line=node.lineno,
        function=function,
        before=" ".join(text[begin:end].decode().split()),
        after=after,
        declares=declares,
        nth=0,
        source=(text[:begin] + after.encode() + text[end:]).decode(),
    )
