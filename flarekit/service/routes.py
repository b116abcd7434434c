"""API v1: cases and predictors."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from flarekit.report.picture import colours_of
from flarekit.service.outputs import MASK, record_of
from flarekit.service.problems import Problem
from flarekit.service.service import Service
from flarekit.service.uploads import Upload, UploadLimits, no_space, receive
from flarekit.service.views import (
    CaseView,
    Clicks,
    PredictorView,
    ProblemView,
    card_of,
    predictor_view,
    view_of,
)
from flarekit.service.wishes import Wish

router = APIRouter(
    prefix="/v1", responses={422: {"model": ProblemView, "description": "What is wrong."}}
)
_LOOK_S = 0.1
_REPEAT_S = 10.0
_MOST_FILES = 20_000
_SPARE_BYTES = 1 << 28  # of the disk
_Mode: TypeAdapter[Literal["fast", "exact"]] = TypeAdapter(Literal["fast", "exact"])
_Budget: TypeAdapter[float] = TypeAdapter(
    Annotated[float, Query(gt=0, le=86_400, allow_inf_nan=False)]
)
_FORM = json.loads(Path(__file__).with_name("upload_form.json").read_text("utf-8"))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _owner(request: Request) -> str:
    owner: str = request.state.owner
    return owner


@router.get("/predictors")
def predictors(request: Request) -> list[PredictorView]:
    """List the predictors that are offered; the first is taken where none is named."""
    return [
        predictor_view(each, colours_of(each.spec.labels))
        for each in _service(request).predictors.values()
    ]


@router.get("/predictors/{name}/card", response_class=PlainTextResponse)
def card(request: Request, name: str) -> str:
    """Return a predictor's card, in Markdown: what it was made of, and how good it is."""
    return card_of(_service(request).predictor(name).folder)


@router.post("/cases", status_code=202, openapi_extra=_FORM)
async def submit(request: Request) -> CaseView:
    """Upload a scan; it is segmented when its turn comes."""
    service, owner = _service(request), _owner(request)
    case_id = service.reserve()
    try:
        upload = await _received(request, service, case_id)
        wish = _wish(upload.fields, service)
        case = await anyio.to_thread.run_sync(service.submit, case_id, upload, wish, owner)
    finally:
        service.give_up(case_id)
    return view_of(service, case)


async def _received(request: Request, service: Service, case_id: str) -> Upload:
    stated = int(request.headers.get("content-length", "0"))
    settings = service.settings
    if shutil.disk_usage(settings.data).free < stated + _SPARE_BYTES:
        raise no_space()
    limits = UploadLimits(
        most_bytes=settings.max_upload_bytes, most_files=_MOST_FILES, stall_s=settings.stall_s
    )
    stream: AsyncIterator[bytes] = request.stream()
    try:
        kind = request.headers.get("content-type", "")
        return await receive(stream, kind, service.folder_of(case_id), limits)
    except ClientDisconnect as error:
        raise Problem(400, "the upload ended early", fix="send it again") from error


def _wish(fields: dict[str, str], service: Service) -> Wish:
    unknown = sorted(set(fields) - {"predictor", "mode", "time_budget_s"})
    if unknown:
        raise Problem(
            422,
            "the request has fields that are not known",
            fix="send predictor, mode, time_budget_s, and the scan as a file",
        )
    try:
        budget = fields.get("time_budget_s")
        return Wish(
            predictor=fields.get("predictor") or next(iter(service.predictors)),
            mode=_Mode.validate_python(fields.get("mode", "fast")),
            time_budget_s=None if not budget else _Budget.validate_python(budget),
        )
    except ValidationError as error:
        raise Problem(
            422,
            "mode or time_budget_s is not understood",
            fix="give mode fast or exact, and seconds above 0",
        ) from error


@router.post("/demo", status_code=202)
def demo(
    request: Request,
    predictor: Annotated[str | None, Body(embed=True)] = None,
    seed: Annotated[int, Body(embed=True, ge=0, le=999_999)] = 1,
) -> CaseView:
    """Segment a CT that is generated from a seed, for those who have no scan at hand."""
    service = _service(request)
    case_id = service.reserve()
    try:
        wish = Wish(predictor=predictor or next(iter(service.predictors)))
        if len(service.predictor(wish.predictor).spec.channels) > 1:
            raise Problem(
                422, f"{wish.predictor} takes more than a CT", fix="choose a predictor of one CT"
            )
        case = service.submit_phantom(case_id, wish, _owner(request), seed)
    finally:
        service.give_up(case_id)
    return view_of(service, case)


@router.get("/cases")
def cases(request: Request) -> list[CaseView]:
    """List the cases of this token, the oldest first."""
    service = _service(request)
    return [view_of(service, case) for case in service.store.all(owner=_owner(request))]


@router.get("/cases/{case_id}")
def case(request: Request, case_id: str) -> CaseView:
    """Tell where a case stands and what it came to."""
    service = _service(request)
    return view_of(service, service.case(case_id, _owner(request)))


@router.delete("/cases/{case_id}", status_code=204)
def delete(request: Request, case_id: str) -> Response:
    """Delete a case with all its files; one that runs is stopped."""
    _service(request).delete(case_id, _owner(request))
    return Response(status_code=204)


@router.post("/cases/{case_id}/cancel")
def cancel(request: Request, case_id: str) -> CaseView:
    """Stop a case that waits or runs."""
    service = _service(request)
    return view_of(service, service.cancel(case_id, _owner(request)))


@router.post("/cases/{case_id}/clicks")
def click(request: Request, case_id: str, clicks: Clicks, response: Response) -> CaseView:
    """Correct lesions by clicks.

    The corrected case comes back at once (200) while its scan is still open; later its network has
    to run again first, and the case waits for its turn (202).
    """
    service = _service(request)
    found = service.click(case_id, _owner(request), clicks.model_dump())
    response.status_code = 200 if found.state == "done" else 202
    return view_of(service, found)


@router.get("/cases/{case_id}/events")
async def events(request: Request, case_id: str) -> StreamingResponse:
    """Tell of a case whenever something changes, a line of JSON each time, until it is over."""
    service, owner = _service(request), _owner(request)
    service.case(case_id, owner)
    return StreamingResponse(
        _lines(service, case_id, owner),
        media_type="application/x-ndjson",
        headers={"X-Accel-Buffering": "no"},
    )


async def _lines(service: Service, case_id: str, owner: str) -> AsyncIterator[str]:
    latest, quiet_s = "", 0.0
    while not service.turns.are_over:
        try:
            found = service.case(case_id, owner)
        except Problem:
            return  # deleted
        line = view_of(service, found).model_dump_json()
        if line != latest or quiet_s >= _REPEAT_S:
            yield line + "\n"
            latest, quiet_s = line, 0.0
        if found.state not in ("waiting", "running"):
            return
        await anyio.sleep(_LOOK_S)
        quiet_s += _LOOK_S


@router.get("/cases/{case_id}/scan", response_class=FileResponse)
def scan(request: Request, case_id: str, channel: str | None = None) -> FileResponse:
    """Return a channel of the scan as it was uploaded; DICOM series as NIfTI."""
    service = _service(request)
    found = service.case(case_id, _owner(request))
    names = view_of(service, found).channels
    if channel is not None and channel not in names:
        raise Problem(422, "no such channel", fix=f"one of: {', '.join(names)}")
    if "phantom" in found.files or not found.files:
        raise Problem(409, "the scan is not generated yet", fix="wait until the case is done")
    number = 0 if channel is None else names.index(channel)
    with service.reading(found) as folder:
        path = service.files.scan(folder, found.files, service.scan_of(found), number)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/cases/{case_id}/mask", response_class=FileResponse)
def mask(request: Request, case_id: str) -> Response:
    """Return the mask as NIfTI, uint8, in the scan's own geometry."""
    service = _service(request)
    found = service.finished(case_id, _owner(request))
    with service.reading(found) as folder:
        content = (folder / MASK).read_bytes()  # at once: a click replaces the file
    named = {"Content-Disposition": f'attachment; filename="{MASK}"'}
    return Response(content, media_type="application/gzip", headers=named)


@router.get("/cases/{case_id}/segmentation.dcm", response_class=FileResponse)
def segmentation(request: Request, case_id: str) -> FileResponse:
    """Return the mask as a DICOM segmentation, of a scan that came as DICOM."""
    service = _service(request)
    found = service.finished(case_id, _owner(request))
    with service.reading(found) as folder:
        path = service.files.segmentation(folder, found.revision, service.scan_of(found))
    return FileResponse(path, media_type="application/dicom", filename="segmentation.dcm")


@router.get("/cases/{case_id}/picture", response_class=FileResponse)
def picture(request: Request, case_id: str) -> FileResponse:
    """Return a picture of scan and mask in three planes, as PNG."""
    service = _service(request)
    found = service.finished(case_id, _owner(request))
    labels = service.predictor(found.predictor).spec.labels
    with service.reading(found) as folder:
        path = service.files.picture(folder, found.revision, service.scan_of(found), labels)
    return FileResponse(path, media_type="image/png", filename="picture.png")


@router.get("/cases/{case_id}/statistics", response_class=FileResponse)
def statistics(request: Request, case_id: str) -> FileResponse:
    """Return what every label measures: volume, intensities, parts, place, and what is unusual."""
    return FileResponse(_statistics(request, case_id)[0], media_type="application/json")


@router.get("/cases/{case_id}/statistics.csv", response_class=FileResponse)
def statistics_as_csv(request: Request, case_id: str) -> FileResponse:
    """Return what every label measures, as CSV."""
    path = _statistics(request, case_id)[1]
    return FileResponse(path, media_type="text/csv", filename="statistics.csv")


def _statistics(request: Request, case_id: str) -> tuple[Path, Path]:
    service = _service(request)
    found = service.finished(case_id, _owner(request))
    spec = service.predictor(found.predictor).spec
    with service.reading(found) as folder:
        return service.files.statistics(folder, found.revision, service.scan_of(found), spec)


@router.get("/cases/{case_id}/run")
def run(request: Request, case_id: str) -> JSONResponse:
    """Return the record of the case: what computed what, how long each step took, and memory."""
    service = _service(request)
    found = service.finished(case_id, _owner(request))
    return JSONResponse(record_of(found))
