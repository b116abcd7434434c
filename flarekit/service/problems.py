"""What went wrong, as an answer: RFC 9457's problem+json, with the command line's own words.

Messages that speak of a scan lose whatever came out of it: paths and quoted text of headers.
"""

import errno
import logging
import re
import sqlite3
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flarekit.core.errors import (
    BudgetError,
    DeviceError,
    FlarekitError,
    InputError,
    OutputError,
    PredictorError,
    UsageError,
)

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
_DISK_OF_SQLITE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_STATUS: tuple[tuple[type[FlarekitError], int], ...] = (
    (UsageError, 422),
    (InputError, 422),
    (BudgetError, 422),
    (DeviceError, 503),
    (PredictorError, 500),
    (OutputError, 507),
)
# text as Python quotes it; an apostrophe within a word is none
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_UNFINISHED = re.compile(r"""(?<!\w)['"][^'"]*$""")


class Problem(Exception):  # noqa: N818 - the word of the RFC
    """A request that cannot be met."""

    def __init__(
        self, status: int, message: str, *, fix: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.fix = status, message, fix
        self.headers = headers or {}

    def answer(self) -> JSONResponse:
        """Return it as an answer."""
        content = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.message,
            "fix": self.fix,
        }
        return JSONResponse(
            content, self.status, self.headers, media_type="application/problem+json"
        )


def problem_of(error: FlarekitError) -> Problem:
    """Return an expected failure of the package as an answer."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Problem(status, error.message, fix=error.fix)


def said_of(error: FlarekitError, folder: Path) -> dict[str, str]:
    """Return why a case failed, without anything that its files or headers say.

    Args:
        error: why.
        folder: of the case.
    """
    return {
        "message": without_names(error.message, folder),
        "fix": without_names(error.fix, folder),
    }


def log_fault(log: logging.Logger, error: Exception, where: str) -> None:
    """Log what nobody expected by its kind and place; its text may be that of a scan's headers."""
    frames = "".join(traceback.format_tb(error.__traceback__)[-3:])
    log.error("%s within %s, at\n%s", type(error).__name__, where, frames)


def without_names(text: str, folder: Path) -> str:
    """Return a sentence without the folder of a case and without text that headers brought.

    Files of an upload are called after their channel or their number, so they may be named.
    """
    for root in {str(folder.resolve()), str(folder)}:
        text = text.replace(f"{root}/", "").replace(root, "the upload")
    return _UNFINISHED.sub("(its text)", _QUOTED.sub("(its text)", text))


def answer_problems(app: FastAPI) -> None:
    """Let an application answer every failure as a problem, without a traceback."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> JSONResponse:
        return error.answer()

    @app.exception_handler(FlarekitError)
    async def _expected(_: Request, error: FlarekitError) -> JSONResponse:
        return problem_of(error).answer()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return Problem(422, _first_fault(error.errors()), fix="see /docs").answer()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return Problem(error.status_code, str(error.detail), fix="see /docs").answer()

    @app.exception_handler(sqlite3.OperationalError)
    @app.exception_handler(OSError)
    async def _disk(_: Request, error: Exception) -> JSONResponse:
        said = _fault_of_the_disk(error)
        if said is None:
            raise error  # unexpected, as any other
        fix = "free space where its --data lies, and see whether it can be written"
        return Problem(507, f"the service cannot keep its files: {said}", fix=fix).answer()

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> JSONResponse:
        said = f"{type(error).__name__} within the service"
        return Problem(500, said, fix="see its log; please report it").answer()


def _fault_of_the_disk(error: Exception) -> str | None:
    """Return what a disk says that is full, broken or not to be written; None of other errors."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _DISK else None
    name = getattr(error, "sqlite_errorname", "")
    return str(error) if name.startswith(_DISK_OF_SQLITE) else None


def _first_fault(errors: Any) -> str:  # noqa: ANN401 - pydantic's list
    first = errors[0] if errors else {"loc": (), "msg": "is not understood"}
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"
