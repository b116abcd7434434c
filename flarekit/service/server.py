"""The server around the application: uvicorn, with quiet logs and no patience for slow headers."""

import asyncio
import logging
import socket
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flarekit.core.errors import UsageError
from flarekit.service.app import create_app
from flarekit.service.service import Service
from flarekit.service.settings import Settings

_LOG = logging.getLogger(__name__)
_HEADERS_S = 20.0
_LINGER_S = 3.0
_MOST_CONNECTIONS = 200


class PatientProtocol(H11Protocol):
    """Closes connections that bring no request in time, or go on sending after the answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.loop.call_later(_HEADERS_S, self._close_without_request)

    def on_response_complete(self) -> None:
        """Give who still sends a moment to read the answer, and then hang up."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self.loop.call_later(_LINGER_S, self.transport.abort)

    def _close_without_request(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()


def serve(settings: Settings, *, verbose: bool = False) -> None:
    """Serve until somebody ends it.

    Args:
        settings: of the service.
        verbose: say more.

    Raises:
        FlarekitError: a predictor is not there, the data folder cannot be made or is in use, or
            the address is.
    """
    with _listening(settings) as listening:
        server = uvicorn.Server(config_of(create_app(Service(settings)), settings))
        _quiet_logs(verbose=verbose)
        port = listening.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        _LOG.info("the page is at http://%s:%d/", host, port)
        server.run(sockets=[listening])


def _listening(settings: Settings) -> socket.socket:
    kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(kind, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}",
            fix="choose another --port, or 0 for a free one, or another --host",
        ) from error
    return listening


def config_of(app: Any, settings: Settings) -> uvicorn.Config:  # noqa: ANN401 - an ASGI application
    """Return how an application is served."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=1 << 15,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )


def _quiet_logs(*, verbose: bool) -> None:
    """Let only the service speak: what libraries say may hold text of a scan's headers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [logging.NullHandler()]
    for name in ("flarekit.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.DEBUG if verbose and name.startswith("flarekit") else logging.INFO)
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
