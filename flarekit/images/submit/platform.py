"""grand-challenge.org through its own client, gcapi: algorithms, jobs and what they made.

https://github.com/DIAGNijmegen/rse-gcapi (Apache-2.0). The token goes into the client and nowhere
else.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit.core.errors import InputError, OutputError, UsageError
from flarekit.core.extras import how_to_install, require
from flarekit.images.submit.errors import ASK, TOKEN_VARIABLE, UPGRADE, PlatformError, in_words
from flarekit.images.submit.inputs import Given, Interface, Socket
from flarekit.images.submit.outputs import check_inside, place

if TYPE_CHECKING:
    import gcapi

_LOG = logging.getLogger(__name__)
API_URL = "https://grand-challenge.org/api/v1/"
SUCCEEDED, FAILED, CANCELLED = "Succeeded", "Failed", "Cancelled"  # no job leaves these again
_NEEDED = (  # of gcapi, in versions that answer to the platform's API of today
    ("gcapi", "Client"),
    ("gcapi", "SocketValueSpec"),
    ("gcapi.check_version", "UnsupportedVersionError"),
    ("gcapi.exceptions", "ObjectNotFound"),
    ("gcapi.retries", "SelectiveBackoffStrategy"),
)
_QUERY = re.compile(r"\?[^\s'\"]*")  # of an address: what signs an upload stands there


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What the platform says of an algorithm.

    Attributes:
        slug: its name in addresses.
        url: of its page.
        api_url: by which jobs refer to it.
        interfaces: inputs it takes together, with their outputs.
    """

    slug: str
    url: str
    api_url: str
    interfaces: tuple[Interface, ...]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a job: its socket, and gcapi's object that leads to its content."""

    socket: Socket
    content: Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the platform says of a job.

    Attributes:
        pk: its identifier.
        url: of its page, with its log.
        algorithm: the API's address of its algorithm.
        status: as the platform words it.
        reason: why it failed, where the API says so (that of 2026 leaves it to the page).
        outputs: what it made, once it has succeeded.
    """

    pk: str
    url: str
    algorithm: str
    status: str
    reason: str
    outputs: tuple[Output, ...]


@contextmanager
def connect(url: str, *, retry_s: float) -> Iterator[Platform]:
    """Connect to the platform at an address, with the token from the environment.

    Args:
        url: of the API.
        retry_s: the first of gcapi's pauses when the platform is overloaded; they double.

    Raises:
        UsageError: gcapi or the token is missing, or the address is none.
        UnreachableError: nothing answers there.
        PlatformError: something else answers, or this gcapi is too old for it.
    """
    gcapi = _imported()
    from gcapi.check_version import UnsupportedVersionError
    from gcapi.retries import SelectiveBackoffStrategy

    base_url, token = _api_url(url), _token()
    _take_over_logging()
    strategy = SelectiveBackoffStrategy(backoff_factor=retry_s, maximum_number_of_retries=8)
    fault = f"{base_url} does not answer as grand-challenge.org does"
    with in_words(fault, fix=f"check --url; it is {API_URL} by default"):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                client = gcapi.Client(token=token, base_url=base_url, retry_strategy=strategy)
        except UnsupportedVersionError as error:
            raise PlatformError(
                f"gcapi {version('gcapi')} is too old for {base_url}", fix=UPGRADE
            ) from error
    for warning in caught:
        _LOG.info("%s", warning.message)
    with closing(client):
        yield Platform(client)


class Platform:
    """The platform, as the owner of a token sees it."""

    def __init__(self, client: gcapi.Client) -> None:
        self._client = client

    def algorithm(self, slug: str) -> Algorithm:
        """Look an algorithm up.

        Raises:
            PlatformError: there is none of that name that the token may see.
            UnreachableError: the connection broke.
        """
        fix = f"take the name from the address of its page; {ASK}"
        with in_words(f"algorithm {slug!r} cannot be looked up", fix=fix):
            found = self._client.algorithms.detail(slug=slug)
        if not found.interfaces:
            raise PlatformError(
                f"algorithm {slug!r} takes no inputs yet", fix=f"set its interfaces at {found.url}"
            )
        interfaces = tuple(
            Interface(inputs=_sockets(each.inputs), outputs=_sockets(each.outputs))
            for each in found.interfaces
        )
        return Algorithm(slug=slug, url=found.url, api_url=found.api_url, interfaces=interfaces)

    def start(self, algorithm: Algorithm, inputs: Sequence[Given]) -> str:
        """Upload inputs, start a job, and return its identifier.

        Raises:
            InputError: a file cannot be read.
            PlatformError: the token may not run the algorithm, an input is refused, or there are
                no credits left.
            UnreachableError: the connection broke; the job may have been started.
        """
        from gcapi import SocketValueSpec

        specs = [
            SocketValueSpec(socket_slug=each.socket.slug, value=each.value)
            if each.socket.super_kind == "value"
            else SocketValueSpec(socket_slug=each.socket.slug, file=each.file)
            for each in inputs
        ]
        fault = f"no job on {algorithm.slug!r} was started"
        look = f"see {algorithm.url}jobs/ before trying again: it may have been after all"
        with in_words(fault, unreachable_fix=look):
            try:
                job = self._client.start_algorithm_job(algorithm_slug=algorithm.slug, inputs=specs)
            except KeyError as error:  # gcapi takes the ETag of a part whatever the status is
                raise PlatformError(
                    f"{fault}: the platform's storage refused a part of an upload", fix="try again"
                ) from error
            except OSError as error:
                raise InputError(
                    f"{error.filename}: cannot be read: {error.strerror}",
                    fix="check path and permissions",
                ) from error
        return str(job.pk)

    def job(self, pk: str) -> Job:
        """Ask how a job is doing.

        Raises:
            PlatformError: there is no such job that the token may see.
            UnreachableError: the connection broke.
        """
        from gcapi.models import HyperlinkedJob

        with in_words(f"job {pk} cannot be looked up"):
            stated = self._client(path=f"algorithms/jobs/{pk}/")
            job = HyperlinkedJob(**stated)
            reason = str(stated.get("error_message") or "").strip()
        return Job(
            pk=pk,
            url=job.url,
            algorithm=job.algorithm,
            status=job.status,
            reason=reason,
            outputs=tuple(
                Output(socket=_socket(each.interface), content=each) for each in job.outputs
            ),
        )

    def fetch(self, output: Output, folder: Path) -> list[Path]:
        """Download an output to where its socket says, and return its files.

        Raises:
            PlatformError: it cannot be had.
            UnreachableError: the connection broke.
            OutputError: it cannot be written, or a folder for one image holds another.
        """
        check_inside(output.socket)
        with tempfile.TemporaryDirectory() as staging:
            with in_words(f"output {output.socket} cannot be downloaded", fix="look at its page"):
                try:
                    self._client.download_socket_value(
                        output.content, output_directory=Path(staging)
                    )
                except OSError as error:
                    raise OutputError(
                        f"{staging}: cannot be written: {error.strerror}",
                        fix="make room there, or name another folder in TMPDIR",
                    ) from error
            return place(Path(staging), output.socket, folder)


def _sockets(stated: Sequence[Any]) -> tuple[Socket, ...]:
    return tuple(map(_socket, stated))


def _socket(stated: Any) -> Socket:  # noqa: ANN401 - gcapi's model
    return Socket(
        slug=stated.slug,
        path=stated.relative_path,
        kind=stated.kind,
        super_kind=stated.super_kind.casefold(),
    )


def _imported() -> Any:  # noqa: ANN401 - a module
    require("gcapi", "submit", "the platform's Python client, gcapi, is not installed")
    try:
        gcapi = import_module("gcapi")
        for module, name in _NEEDED:
            getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "gcapi":
            raise UsageError(
                f"the platform's Python client, gcapi, needs {error.name}, which is not installed",
                fix=how_to_install("submit"),
            ) from error
        raise _too_old(str(error.name)) from error
    except (ImportError, AttributeError) as error:
        raise _too_old(str(error)) from error
    return gcapi


def _too_old(what: str) -> UsageError:
    try:
        installed = version("gcapi")
    except PackageNotFoundError:
        installed = "of unknown version"
    return UsageError(
        f"gcapi {installed} is too old: {what} is not in it", fix=f"{UPGRADE} (0.16 or newer)"
    )


def _api_url(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"--url {url}: {error}", fix=f"give one like {API_URL}") from error
    if parsed.scheme != "https" or not parsed.host:
        raise UsageError(
            f"--url {url}: does not begin with https://, and no token is sent in the clear",
            fix=f"give one like {API_URL}",
        )
    return url if url.endswith("/") else f"{url}/"


def _token() -> str:
    words = os.environ.get(TOKEN_VARIABLE, "").split()
    if not words:
        raise UsageError(
            f"no token: {TOKEN_VARIABLE} is not set",
            fix="make one on the platform (your profile, Manage API Tokens) and export it there",
        )
    if len(words) > 2 or not (words[-1].isascii() and words[-1].isprintable()):
        raise UsageError(
            f"{TOKEN_VARIABLE} does not hold a token", fix="set it to the token alone, in one word"
        )
    return words[-1]


class _Relay(logging.Handler):
    """Pass gcapi's messages on as details, without what signs an address."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the message again."""
        _LOG.debug("gcapi: %s", _QUERY.sub("?...", record.getMessage()))


def _take_over_logging() -> None:
    """Have gcapi's messages come through ours, which say the same in words."""
    logger = logging.getLogger("gcapi")
    logger.handlers[:] = [_Relay()]
    logger.propagate = False
