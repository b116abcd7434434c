"""What every request passes first, and what every answer carries."""

from __future__ import annotations

import logging
from http import HTTPStatus
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flarekit.service.problems import Problem, log_fault
from flarekit.service.settings import Settings
from flarekit.service.uploads import too_large

_LOG = logging.getLogger(__name__)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; font-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_GUARDED = "/v1/"
_UPLOADS = "/v1/cases"
_LARGEST_JSON = 1 << 20
_DRAIN_S = 5.0


class Guard:
    """Checks Host, Origin and token before anything else sees the request.

    A page of another website, or one whose name was made to point at this machine, gets nothing:
    its Host or its Origin is not ours.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._names = settings.host_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no websockets
        is_upload = scope["path"] == _UPLOADS
        limit = self._settings.max_upload_bytes if is_upload else _LARGEST_JSON
        refused = too_large(limit) if is_upload else _no_upload()
        body = _Body(receive, limit, refused, self._settings.stall_s)
        answer = _answering(scope["path"], send, body)
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            _check_origin(scope, headers)
            _check_length(headers, limit, refused)
            if scope["path"].startswith(_GUARDED):
                owner = self._settings.owner_of(headers.get("authorization"))
                if owner is None:
                    raise _no_token()
                scope.setdefault("state", {})["owner"] = owner
        except Problem as problem:
            await problem.answer()(scope, body, answer)
            return
        try:
            await self._app(scope, body, answer)
        except Exception as error:  # noqa: BLE001 - it was answered; here it is only told
            log_fault(_LOG, error, "the service")

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        name = _name_of(hosts[0]) if len(hosts) == 1 else None
        if name is None or name not in self._names:
            raise Problem(
                421,
                "this service is not known by the name that the request asks for",
                fix="open 127.0.0.1, or start the service with --allow-host NAME",
            )


def _name_of(host: str) -> str | None:
    """Return the name of a Host header, lower case, without its port."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return (parts.hostname or "").lower() or None


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Refuse what another website's page asks for, be it only to look."""
    origins = headers.getlist("origin")
    own = {f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")}
    foreign = Problem(403, "another website asks", fix="open the service's own page")
    if any(origin.lower() not in own for origin in origins):
        raise foreign
    site = headers.get("sec-fetch-site", "none")
    is_visit = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not is_visit:
        raise foreign


def _check_length(headers: Headers, limit: int, refused: Problem) -> None:
    stated = headers.get("content-length", "0")
    if not stated.isdigit():
        raise Problem(400, "Content-Length is not a number", fix="send the request again")
    if int(stated) > limit:
        raise refused


def _no_upload() -> Problem:
    """Return the answer to a large body where none is taken."""
    return Problem(
        413,
        f"the request is larger than {_LARGEST_JSON >> 20} MiB, and its address takes no uploads",
        fix=f"send scans to {_UPLOADS}; /docs describes every request",
        headers={"Connection": "close"},
    )


def _no_token() -> Problem:
    return Problem(
        401,
        "the request brings no token that this service knows",
        fix="send the header Authorization: Bearer TOKEN",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _answering(path: str, send: Send, body: _Body) -> Send:
    """Return what sends an answer with our headers; one that refuses waits for the body's end."""
    keeps = path.startswith("/assets/")

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-cache" if keeps else "no-store")
            if message["status"] >= 400 and message["status"] != HTTPStatus.REQUEST_TIMEOUT:
                await body.drain()
        await send(message)

    return answer


class _Body:
    """A request's body, with a limit to its size and to the pauses in it."""

    def __init__(self, receive: Receive, limit: int, refused: Problem, stall_s: float) -> None:
        self._receive, self._limit, self._stall_s = receive, limit, stall_s
        self._refused = refused
        self._size, self._complete = 0, False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()  # tells when the asker has gone
        with anyio.move_on_after(self._stall_s) as patience:
            message = await self._receive()
        if patience.cancelled_caught:
            raise Problem(
                408,
                f"nothing came for {self._stall_s:.0f} s",
                fix="send the request again",
                headers={"Connection": "close"},
            )
        self._size += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._size > self._limit:
            raise self._refused
        return message

    async def drain(self) -> None:
        """Read on for a while: most who send a body hear an answer only after its end."""
        with anyio.move_on_after(_DRAIN_S):
            while not self._complete:
                message = await self._receive()
                self._complete = not message.get("more_body", False)
