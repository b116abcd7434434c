from __future__ import annotations

import inspect

import pytest

from flarekit import conventions
from flarekit.core.errors import UsageError


@pytest.mark.parametrize("name", conventions.names())
def test_every_convention_defines_what_the_protocol_asks(name):
    convention = conventions.get(name)
    for function in ("find_cases", "read_case", "write_mask", "write_empty_mask"):
        ours = inspect.signature(getattr(convention, function))
        theirs = inspect.signature(getattr(conventions.Convention, function))
        assert list(ours.parameters) == [p for p in theirs.parameters if p != "self"]


def test_a_near_miss_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'flare'"):
        conventions.get("flair")
