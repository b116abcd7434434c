"""Many clients at one `flarekit serve`, which is killed in the middle and started again.

    python profiling/load_service.py [--clients 20] [--minutes 5] [--predictor abdomen_ct]
    python profiling/load_service.py --quick --output FOLDER

Every client uploads a small phantom, waits for its mask and begins again; where the queue is full
(429) it waits as long as it is told. After half of the time the service is killed (SIGKILL) and
started again on the same data. Told are the answers by status, what became of every case that was
accepted, and the resident memory of the service. The result goes to service_load_cpu.json beside
this file.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import psutil
from measured import QUICK_MM, parsed, parser_of, write

from flarekit.phantom.scan import abdomen_phantom

_EVERY_S = 0.5
_SPACING_MM = (5.0, 3.0, 3.0)
_OVER = ("done", "failed", "cancelled")


@dataclass
class Seen:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    done_before_the_kill: dict[str, bytes] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    resident_mib: list[list[float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Service:
    """A service in a process of its own, on one folder."""

    def __init__(self, predictor: str, data: Path, queue: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._line = [sys.executable, "-m", "flarekit.cli.main", "serve", "-p", predictor]
        self._line += ["--port", str(self.port), "--data", str(data), "--device", "cpu"]
        self._line += ["--queue", str(queue)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen(self._line, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == httpx.codes.OK:
                    return
            time.sleep(0.1)
        raise SystemExit("the service does not start")

    def end(self, number: signal.Signals) -> None:
        """End it by a signal."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    def resident_mib(self) -> float:
        """Return its resident memory."""
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


def phantom(folder: Path, quick: bool) -> Path:
    made = abdomen_phantom(3, spacing_mm_ZYX=QUICK_MM if quick else _SPACING_MM)
    path = folder / "scan.nii.gz"
    image = nibabel.Nifti1Image(np.ascontiguousarray(made.hu_ZYX.T), made.affine)
    nibabel.save(image, path)
    return path


def client_of(url: str, scan: bytes, seen: Seen, over: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=120) as client:
        while not over.is_set():
            began = time.monotonic()
            try:
                answer = client.post("/v1/cases", files={"scan": ("a.nii.gz", scan)})
                with seen.lock:
                    seen.answers[str(answer.status_code)] += 1
                if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    over.wait(float(answer.headers["retry-after"]))
                    continue
                case_id = answer.json()["id"]
                with seen.lock:
                    seen.accepted.append(case_id)
                state = _followed(client, case_id, over)
                if state == "done":
                    mask = client.get(f"/v1/cases/{case_id}/mask")
                    with seen.lock:
                        seen.answers[f"mask {mask.status_code}"] += 1
                        seen.seconds.append(time.monotonic() - began)
                        seen.done_before_the_kill.setdefault(case_id, mask.content)
            except httpx.TransportError:  # while it is killed and starts again
                with seen.lock:
                    seen.answers["no answer"] += 1
                over.wait(1)


def _followed(client: httpx.Client, case_id: str, over: threading.Event) -> str:
    while not over.is_set():
        state = str(client.get(f"/v1/cases/{case_id}").json()["state"])
        if state in _OVER:
            return state
        over.wait(0.3)
    return "left"


def watch(service: Service, seen: Seen, over: threading.Event) -> None:
    began = time.monotonic()
    while not over.wait(_EVERY_S):
        with contextlib.suppress(psutil.Error):
            seen.resident_mib.append([round(time.monotonic() - began, 1), service.resident_mib()])


def loaded(service: Service, scan: bytes, clients: int, seconds: float) -> Seen:
    """Let clients ask for a while; kill the service in the middle and start it again."""
    seen, over = Seen(), threading.Event()
    threads = [
        threading.Thread(target=client_of, args=(service.url, scan, seen, over))
        for _ in range(clients)
    ]
    threads.append(threading.Thread(target=watch, args=(service, seen, over)))
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    service.end(signal.SIGKILL)
    service.start()
    time.sleep(seconds / 2)
    over.set()
    for thread in threads:
        thread.join()
    return seen


def became_of(service: Service, seen: Seen) -> dict[str, Any]:
    """Wait for every accepted case and return what became of them."""
    states: Counter[str] = Counter()
    lost = changed = 0
    with httpx.Client(base_url=service.url, timeout=120) as client:
        for case_id in seen.accepted:
            answer = client.get(f"/v1/cases/{case_id}")
            while answer.status_code == httpx.codes.OK and answer.json()["state"] not in _OVER:
                time.sleep(0.2)
                answer = client.get(f"/v1/cases/{case_id}")
            if answer.status_code == httpx.codes.OK:
                states[answer.json()["state"]] += 1
            else:
                lost += 1
        for case_id, mask in seen.done_before_the_kill.items():
            changed += client.get(f"/v1/cases/{case_id}/mask").content != mask
    return {"states": dict(states), "lost": lost, "masks_that_changed": changed}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--queue", type=int, default=16)
    arguments = parsed(parser, line)
    if arguments.quick:
        arguments.clients, arguments.minutes, arguments.queue = 4, 0.1, 2
    with tempfile.TemporaryDirectory() as folder:
        scan = phantom(Path(folder), arguments.quick).read_bytes()
        service = Service(arguments.predictor, Path(folder) / "data", arguments.queue)
        service.start()
        try:
            seen = loaded(service, scan, arguments.clients, arguments.minutes * 60)
            became = became_of(service, seen)
        finally:
            service.end(signal.SIGTERM)
    resident = [mib for _, mib in seen.resident_mib]
    thirds = [resident[k * len(resident) // 3 : (k + 1) * len(resident) // 3] for k in range(3)]
    result = {
        "clients": arguments.clients,
        "minutes": arguments.minutes,
        "queue": arguments.queue,
        "answers": dict(sorted(seen.answers.items())),
        "accepted": len(seen.accepted),
        "became": became,
        "seconds_to_mask": round(statistics.median(seen.seconds), 2) if seen.seconds else None,
        "resident_mib_highest_by_thirds": [
            round(max(part), 1) if part else None for part in thirds
        ],
        "resident_mib": [[at, round(mib)] for at, mib in seen.resident_mib[::20]],
    }
    write(arguments.output / "service_load_cpu.json", result)


if __name__ == "__main__":
    main()
