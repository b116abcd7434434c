"""`flarekit serve`: the page and the API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flarekit.cli.options import Device, Precision, Verbose, spread
from flarekit.core.errors import FlarekitError, UsageError
from flarekit.core.extras import require


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served, to whom, and for how long; see `flarekit.service.settings.Settings`."""

    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need tokens.")
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000
    predictors: Annotated[
        list[str] | None,
        typer.Option(
            "--predictor",
            "-p",
            help="Name or folder of a predictor to offer; may be given several times, and the page "
            "begins with the first. By default all whose weights are at hand.",
        ),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with one token per line; requests without one of them are refused."
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A further host name by which browsers reach the service; may be given several "
            "times."
        ),
    ] = None
    data: Annotated[Path, typer.Option(help="Folder for uploads, masks and the list of cases.")] = (
        Path("flarekit-data")
    )
    keep_hours: Annotated[
        float, typer.Option(min=0.01, help="Cases are deleted this long after their last change.")
    ] = 24.0
    max_upload_gb: Annotated[
        float, typer.Option(min=0.001, help="GiB that an upload may have.")
    ] = 4.0
    queue: Annotated[int, typer.Option(min=1, help="Cases that may wait.")] = 16


@spread
def serve(serving: Serving, verbose: Verbose = False) -> None:
    """Serve a page and an API that segment scans, on this machine."""
    for package in ("fastapi", "uvicorn"):
        require(package, "serve")
    from flarekit.service import server
    from flarekit.service.settings import Settings, read_tokens

    options: dict[str, Any] = vars(serving).copy()
    token_file, allowed = options.pop("token_file"), options.pop("allow_host")
    names = options.pop("predictors") or _all_at_hand()
    settings = Settings(
        **options,
        predictors=tuple(names),
        tokens=() if token_file is None else read_tokens(token_file),
        allowed_hosts=tuple(allowed or ()),
    )
    server.serve(settings, verbose=verbose)


def _all_at_hand() -> list[str]:
    """Return the predictors whose weights are there, the default one first.

    Those that could not be loaded are left out, and named.
    """
    from flarekit.cli.console import Console
    from flarekit.segmentation.predictors import predictors
    from flarekit.segmentation.source import Source

    console, names = Console(), []
    for predictor in predictors():
        if predictor.weights.is_file():
            try:
                Source.of_folder(predictor).check()
            except FlarekitError as error:
                console.error(f"{predictor.name} is not offered: {error.message}", error.fix)
            else:
                names.append(predictor.name)
    if not names:
        raise UsageError("no predictor is at hand", fix="see `flarekit predictors`")
    return sorted(names, key=lambda name: name != "abdomen_ct")
