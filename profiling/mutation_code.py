"""Which functions a change of a module's source changes, and putting them into modules in use.

So that a change needs no new import: what `mutation_runs.py` forks has collected its tests already.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType

Pairs = list[tuple[CodeType, CodeType]]


def changed_functions(before: str, after: str, path: Path) -> Pairs | None:
    """Return the outermost functions that differ, as they were and as they are.

    None where something outside of functions differs as well, such as a constant, a default, or a
    comprehension of a module: it takes effect when the module is imported.
    """
    codes = [compile(text, str(path), "exec") for text in (before, after)]
    try:
        return list(_differing(*codes))
    except _OutsideError:
        return None


class _OutsideError(Exception):
    """Something outside of functions differs."""


def _differing(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    if _own(old) != _own(new):
        raise _OutsideError
    for one, other in zip(_inner(old), _inner(new), strict=True):
        if not one.co_flags & CO_OPTIMIZED:  # of a class
            yield from _differing(one, other)
        elif _whole(one) != _whole(other):
            if one.co_name.startswith("<") or one.co_freevars != other.co_freevars:
                raise _OutsideError
            yield one, other


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    """Return what code does by itself, whatever lines it stands in."""
    constants = [(type(each), repr(each)) for each in code.co_consts if not _is_code(each)]
    return code.co_name, code.co_code, code.co_names, code.co_varnames, constants


def _is_code(value: object) -> bool:
    return isinstance(value, CodeType)


def _whole(code: CodeType) -> tuple[object, ...]:
    return (_own(code), *map(_whole, _inner(code)))


def put_into(module: str, pairs: Pairs) -> None:
    """Give the functions of a module that are in use other code; it is imported where it was not.

    A module that is imported only now has it already, as its file does.
    """
    with suppress(Exception):  # which tests that import it will say
        import_module(module)
    codes = {(old.co_filename, old.co_qualname, old.co_firstlineno): new for old, new in pairs}
    for function in [each for each in gc.get_objects() if type(each) is FunctionType]:
        code = function.__code__
        found = codes.get((code.co_filename, code.co_qualname, code.co_firstlineno))
        if found is not None:
            function.__code__ = found
