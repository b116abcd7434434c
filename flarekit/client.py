"""A client of `flarekit serve`: scans go up, masks come back.

    from flarekit.client import Client

    with Client("http://127.0.0.1:8000") as client:
        case = client.segment("scan.nii.gz")
        case.save_mask("mask.nii.gz")
        print(case.volumes_ml["liver"])

Needs httpx alone of the packages that the extra `serve` brings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from flarekit.core.errors import FlarekitError
from flarekit.core.files import write_atomically

Scan = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
Clicks = Mapping[str, Sequence[Sequence[int]]]
_OVER = ("done", "failed", "cancelled")
_LONGEST_WAIT_S = 60.0


class ServiceError(FlarekitError):
    """The service refused a request or did not answer; the message says why.

    Attributes:
        status: of the answer; 0 where there was none.
    """

    def __init__(self, message: str, *, fix: str, status: int = 0) -> None:
        super().__init__(message, fix=fix)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case at a service, as it was when it was asked for.

    Attributes:
        client: who asked.
        content: all that the service says of it; `/openapi.json` describes it.
    """

    client: Client
    content: dict[str, Any]

    @property
    def id(self) -> str:
        """The name that the service gave the case; it cannot be guessed."""
        return str(self.content["id"])

    @property
    def state(self) -> str:
        """How far the case is: `waiting`, `running`, `done`, `failed` or `cancelled`."""
        return str(self.content["state"])

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Label name -> volume, in ml; empty before it is done."""
        return dict((self.content["result"] or {}).get("volumes_ml", {}))

    def statistics(self) -> list[dict[str, Any]]:
        """Return what every label measures: volume, intensities, parts, place."""
        return list(self.client.get(f"/v1/cases/{self.id}/statistics").json())

    def save_mask(self, path: str | Path) -> Path:
        """Write the mask, a compressed NIfTI in the scan's own geometry."""
        return self.save("mask", path)

    def save(self, what: str, path: str | Path) -> Path:
        """Write a file of the case.

        Args:
            what: `mask`, `scan`, `segmentation.dcm`, `picture`, `statistics.csv` or `run`.
            path: where to; an existing file is replaced once the new one is whole.

        Returns:
            The path.

        Raises:
            ServiceError: there is no such file.
            OutputError: it cannot be written.
        """
        target = Path(path)
        write_atomically(target, self.client.get(f"/v1/cases/{self.id}/{what}").content)
        return target


class Client:
    """Sends scans to one `flarekit serve` and fetches masks; use it in a `with` statement."""

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None) -> None:
        """Prepare requests to one service; none is sent yet.

        Args:
            url: of the service, without a path.
            token: as the service's token file has it, where it needs one.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(60.0, read=300.0)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predictors(self) -> list[dict[str, Any]]:
        """Return the predictors that are offered, with their channels and labels."""
        return list(self.get("/v1/predictors").json())

    def cases(self) -> list[Case]:
        """Return the cases that were uploaded with this client's token, the oldest first."""
        return [Case(client=self, content=each) for each in self.get("/v1/cases").json()]

    def case(self, case_id: str) -> Case:
        """Return a case as it is now."""
        return Case(client=self, content=self.get(f"/v1/cases/{case_id}").json())

    def submit(
        self,
        scan: Scan,
        *,
        predictor: str | None = None,
        mode: str = "fast",
        time_budget_s: float | None = None,
    ) -> Case:
        """Upload a scan; it is segmented when its turn comes.

        Args:
            scan: a file, the files or the folder of a DICOM series, or channel name -> file.
            predictor: its name; the service's first where None.
            mode: `fast` or `exact`.
            time_budget_s: seconds that the scan may take; None for no limit.

        Raises:
            ServiceError: it was refused; 429 says that the queue is full.
        """
        fields = {"mode": mode}
        if predictor is not None:
            fields["predictor"] = predictor
        if time_budget_s is not None:
            fields["time_budget_s"] = str(time_budget_s)
        with ExitStack() as opened:
            files = [
                (field, (path.name, opened.enter_context(path.open("rb"))))
                for field, path in _files_of(scan)
            ]
            answer = self._checked("POST", "/v1/cases", data=fields, files=files)
        return Case(client=self, content=answer.json())

    def events(self, case_id: str) -> Iterator[Case]:
        """Yield a case whenever something changes, until it is over or the service ends.

        Raises:
            ServiceError: there is no such case, or the service does not answer any more.
        """
        with (
            self._answered(),
            self._http.stream("GET", f"/v1/cases/{case_id}/events") as answer,
        ):
            if answer.is_error:
                answer.read()
            _check(answer)
            for line in answer.iter_lines():
                yield Case(client=self, content=json.loads(line))

    def wait(self, case_id: str) -> Case:
        """Return a case once it is over.

        Raises:
            ServiceError: it failed or was cancelled.
        """
        while (case := self.case(case_id)).state not in _OVER:
            for case in self.events(case_id):
                if case.state in _OVER:
                    break
        if case.state != "done":
            said = case.content["error"] or {"message": "the case was cancelled", "fix": "send it"}
            raise ServiceError(said["message"], fix=said["fix"])
        return case

    def segment(
        self,
        scan: Scan,
        *,
        predictor: str | None = None,
        mode: str = "fast",
        time_budget_s: float | None = None,
    ) -> Case:
        """Upload a scan and wait until it is segmented; while the queue is full, wait for that.

        Args:
            scan: a file, the files or the folder of a DICOM series, or channel name -> file.
            predictor: its name; the service's first where None.
            mode: `fast` or `exact`.
            time_budget_s: seconds that the scan may take; None for no limit.

        Raises:
            ServiceError: it was refused, failed or was cancelled.
        """
        while True:
            try:
                submitted = self.submit(
                    scan, predictor=predictor, mode=mode, time_budget_s=time_budget_s
                )
            except _BusyError as busy:
                time.sleep(busy.seconds)
            else:
                return self.wait(submitted.id)

    def click(self, case_id: str, clicks: Clicks) -> Case:
        """Correct lesions by clicks and return the case when that is done.

        Args:
            case_id: of a case that is done.
            clicks: `tumor` and `background` -> voxels (x, y, z) of the mask; all of them each time.
        """
        self._checked("POST", f"/v1/cases/{case_id}/clicks", json=dict(clicks))
        return self.wait(case_id)

    def cancel(self, case_id: str) -> Case:
        """Stop a case that waits or runs."""
        answer = self._checked("POST", f"/v1/cases/{case_id}/cancel")
        return Case(client=self, content=answer.json())

    def delete(self, case_id: str) -> None:
        """Delete a case with all its files."""
        self._checked("DELETE", f"/v1/cases/{case_id}")

    def get(self, path: str) -> httpx.Response:
        """Return what a path of the service holds.

        Raises:
            ServiceError: it is refused, or the service is not there.
        """
        return self._checked("GET", path)

    def _checked(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401
        with self._answered():
            return _check(self._http.request(method, path, **content))

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Say so where the service is not there, or is no longer."""
        try:
            yield
        except httpx.TransportError as error:
            raise ServiceError(
                f"{self._http.base_url}: does not answer ({type(error).__name__})",
                fix="check the address, and that flarekit serve runs there",
            ) from error


class _BusyError(ServiceError):
    """The queue is full; come again after so many seconds."""

    seconds: float = 1.0


def _files_of(scan: Scan) -> list[tuple[str, Path]]:
    if isinstance(scan, Mapping):
        return [(name, Path(path)) for name, path in scan.items()]
    paths = [Path(scan)] if isinstance(scan, str | Path) else [Path(each) for each in scan]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(path for path in paths[0].rglob("*") if path.is_file())
    return [("scan", path) for path in paths]


def _check(answer: httpx.Response) -> httpx.Response:
    if not answer.is_error:
        return answer
    try:
        content = answer.json()
        message, fix = str(content["detail"]), str(content["fix"])
    except (ValueError, KeyError, TypeError):
        message, fix = f"the service answered {answer.status_code}", "see its log"
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        busy = _BusyError(message, fix=fix, status=answer.status_code)
        busy.seconds = min(float(answer.headers.get("retry-after", "1")), _LONGEST_WAIT_S)
        raise busy
    raise ServiceError(message, fix=fix, status=answer.status_code)
