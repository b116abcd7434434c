"""`flarekit serve`: the page and the API."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.cli.options import Devices, Precision
from flarekit.core.errors import FlarekitError, UsageError
from flarekit.core.extras import require


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served, to whom, and for how long; see `flarekit.service.settings.Settings`."""

    host: str = "127.0.0.1"
    port: int = 8000
    predictors: list[str] | None = None
    device: Devices = "auto"
    precision: Precision = "auto"
    token_file: Path | None = None
    allow_host: list[str] | None = None
    data: Path = Path("flarekit-data")
    keep_hours: float = 24.0
    max_upload_gb: float = 4.0
    queue: int = 16


def serve(serving: Serving, verbose: bool = False) -> None:
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
