"""What grand-challenge.org, or the way to it, answers instead of what was asked, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import FlarekitError

if TYPE_CHECKING:
    import httpx

TOKEN_VARIABLE = "GRAND_CHALLENGE_AUTHORIZATION"  # gcapi's own
UPGRADE = "pip install --upgrade gcapi"
ASK = "ask for access on its page on the platform, and check whose token it is"


class PlatformError(FlarekitError):
    """The platform refuses, or what it did went wrong."""


class UnreachableError(PlatformError):
    """The platform does not answer now; it may later."""


@contextmanager
def in_words(
    fault: str, *, fix: str | None = None, unreachable_fix: str = "check the connection, try again"
) -> Iterator[None]:
    """Turn what gcapi raises inside into one of the errors above.

    Args:
        fault: what could not be done.
        fix: what to do about an answer that makes no sense, or is that there is nothing.
        unreachable_fix: what to do when the connection breaks.
    """
    import httpx
    from gcapi.exceptions import ObjectNotFound

    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _refusal(fault, error.response, fix, unreachable_fix) from error
    except httpx.RequestError as error:
        raise UnreachableError(
            f"{fault}: {type(error).__name__} {error}".rstrip(), fix=unreachable_fix
        ) from error
    except ObjectNotFound as error:
        raise PlatformError(
            f"{fault}: it is not there, or this token may not see it", fix=fix or ASK
        ) from error
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # an unknown form of answer
        first_line = next(iter(str(error).splitlines()), "")
        raise PlatformError(
            f"{fault}: gcapi {version('gcapi')} cannot use the platform's answer "
            f"({type(error).__name__}: {first_line})",
            fix=fix or UPGRADE,
        ) from error


def _refusal(
    fault: str, response: httpx.Response, fix: str | None, unreachable_fix: str
) -> PlatformError:
    said, code = _said(response), response.status_code
    if code == 401:
        return PlatformError(
            f"{fault}: the token in {TOKEN_VARIABLE} is rejected ({said})",
            fix="make a new one on the platform (your profile, Manage API Tokens)",
        )
    if code in (403, 404):
        return PlatformError(f"{fault}: not there, or not for this token ({said})", fix=fix or ASK)
    if code == 400 and "algorithm" in _answer(response):
        return PlatformError(f"{fault}: this token may see it, but not run it ({said})", fix=ASK)
    if code == 400:
        return PlatformError(f"{fault}: {said}", fix="put that right and try again")
    if code == 429 or code >= 500:
        return UnreachableError(
            f"{fault}: the platform answers {code} ({said})", fix=unreachable_fix
        )
    return PlatformError(f"{fault}: the platform answers {code} ({said})", fix=fix or UPGRADE)


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {"": content}


def _said(response: httpx.Response) -> str:
    """Return what a refusal says, in one line: Django's messages, or the status in words."""
    messages = list(_messages(_answer(response)))
    return "; ".join(messages[:5]) or response.reason_phrase


def _messages(content: object, name: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _messages(value, "" if key in ("detail", "non_field_errors") else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from _messages(value, name)
    else:
        text = " ".join(str(content).split())
        yield f"{name}: {text}" if name else text
