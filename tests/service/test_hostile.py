"""Thousands of hostile requests: the service answers, writes nothing elsewhere and goes on."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from tests.service import hostile
from tests.service.serving import nifti_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of those who make the archives
ANSWERED = (200, 202, 400, 403, 404, 405, 408, 411, 413, 415, 421, 422, 429)


def attack(running, seeds) -> list[str]:
    """Send a request for each seed and return the ids of the cases that came of them."""
    port = int(running.url.rpartition(":")[2])
    accepted = []
    for seed in seeds:
        rng = random.Random(seed)
        if rng.random() < 0.15:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port)) as link,
            ):
                link.settimeout(1)
                link.sendall(hostile.raw_request(rng))
                link.shutdown(socket.SHUT_WR)
                head = link.recv(4096)
                assert not head or not head.startswith(b"HTTP/1.1 5"), (seed, head)
            continue
        make = hostile.mixed if rng.random() < 0.1 else rng.choice(hostile.UPLOADS)
        answer = running.post(*make(rng), predictor=rng.choice(("abdomen_ct", "att_umamba_petct")))
        assert answer.status_code in ANSWERED, (seed, answer.status_code, answer.text)
        assert answer.headers["content-type"].startswith("application/"), seed
        assert "marked" not in answer.text.lower(), (seed, answer.text)
        if answer.status_code == 202:
            accepted.append(answer.json()["id"])
        if len(accepted) % 50 == 49:
            running.finished(accepted[-1])
    return accepted


def check_all(running, accepted, tmp_path) -> None:
    states = [running.finished(case_id) for case_id in accepted]
    for case in states:
        assert case["state"] in ("done", "failed")
        assert "marked" not in str(case["error"]).lower(), case["error"]
        assert "root:" not in str(case)
        assert "while it was computed" not in str(case["error"]), case["error"]
    outside = [
        path for path in tmp_path.rglob("*") if "data" not in path.relative_to(tmp_path).parts
    ]
    assert outside == []
    names = {path.name for path in (tmp_path / "data").rglob("*")}
    assert not [name for name in names if "marked" in name.lower()]
    fine = running.upload(("scan", "a.nii", nifti_of()))
    assert running.finished(fine["id"])["state"] == "done"


@pytest.mark.long
def test_some_hostile_requests_are_answered_and_leave_nothing(serve, settings, tmp_path):
    with serve(settings(max_upload_gb=0.004, queue=500)) as running:
        check_all(running, attack(running, range(60)), tmp_path)


@pytest.mark.slow
def test_two_thousand_hostile_requests_are_answered_and_leave_nothing(serve, settings, tmp_path):
    with serve(settings(max_upload_gb=0.004, queue=500)) as running:
        check_all(running, attack(running, range(1000, 3000)), tmp_path)
