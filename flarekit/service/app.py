"""The application: API, page and guard around a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from flarekit.core.package import PACKAGE, VERSION
from flarekit.service.guard import Guard
from flarekit.service.problems import answer_problems
from flarekit.service.routes import router
from flarekit.service.service import Service

_PAGE = PACKAGE / "web" / "dist"
_NO_PAGE = (
    "This is the API of flarekit; its description is at /openapi.json.\n"
    "The page was not built: run `make web` in a checkout, and start the service again.\n"
)


def create_app(service: Service, page: Path = _PAGE) -> Guard:
    """Return the application that answers for a service; it starts and stops it.

    Args:
        service: not started yet.
        page: folder of the built page.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="flarekit",
        version="1",
        description="Segment scans: upload, follow, correct, measure.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    answer_problems(app)
    app.include_router(router)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Tell that the service answers."""
        return {"status": "ok", "version": VERSION}

    @app.get("/", include_in_schema=False)
    def page_() -> Response:
        index = page / "index.html"
        return FileResponse(index) if index.is_file() else PlainTextResponse(_NO_PAGE)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        path = page / "docs.html"
        return FileResponse(path) if path.is_file() else PlainTextResponse(_NO_PAGE)

    if (page / "assets").is_dir():
        app.mount("/assets", StaticFiles(directory=page / "assets"), name="assets")
    return Guard(app, service.settings)
