"""Uploads that mean harm, or are only broken: what is refused, and that nothing is left behind."""

from __future__ import annotations

import errno
import gzip
import io
import socket
import sqlite3
import tarfile
import time
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flarekit.service.problems import without_names
from tests.service.serving import nifti_of


def left_in(running) -> list[Path]:
    return list((running.service.settings.data / "cases").rglob("*"))


def zip_of(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "name",
    [
        "../../../escaped.nii",
        "/etc/escaped.nii",
        "..\\..\\escaped.nii",
        "C:\\escaped.nii",
        "a\x00b.nii",
        "<script>alert(1)</script>.nii",
        "x" * 3000 + ".nii",
        "",
        ".",
        "con.nii",
    ],
)
def test_names_never_become_paths(running, name, tmp_path):
    before = {path for path in tmp_path.rglob("*") if "data" not in path.parts}
    answer = running.post(("scan", name, nifti_of()))
    if answer.status_code == 202:
        case = running.finished(answer.json()["id"])
        names = {path.name for path in running.service.folder_of(case["id"]).rglob("*")}
        assert names <= {"CT.nii", "mask.nii.gz", "dicom", "000001.dcm"}
    assert "escaped" not in answer.text
    assert "<script>" not in answer.text
    assert not Path("/etc/escaped.nii").exists()
    assert {path for path in tmp_path.rglob("*") if "data" not in path.parts} == before


@pytest.mark.parametrize("name", ["../escaped.nii", "/tmp/escaped.nii", "a/../../escaped.nii"])
def test_archives_whose_members_lead_out_are_refused(running, name):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    for content, called in ((zip_of(**{name: b"evil"}), "a.zip"), (packed.getvalue(), "a.tgz")):
        refused = running.post(("scan", called, content))
        assert refused.status_code == 422
        assert "leads out of its folder" in refused.json()["detail"]
        assert "escaped" not in refused.text  # what members are called stays unsaid
    assert left_in(running) == []


def test_links_in_archives_are_never_followed(running):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("scan.nii")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    assert running.post(("scan", "a.tar", packed.getvalue())).status_code == 422
    assert left_in(running) == []


def test_an_archive_that_unpacks_to_more_than_is_taken_is_refused(serve, settings):
    with serve(settings(max_upload_gb=0.001)) as running:
        refused = running.post(("scan", "bomb.zip", zip_of(**{"a.nii": bytes(1 << 23)})))
        assert refused.status_code == 422
        assert "unpacks to more than" in refused.json()["detail"]
        assert left_in(running) == []


def test_archives_within_archives_are_refused(running):
    inner = zip_of(**{"a.nii": nifti_of()})
    for content in (zip_of(**{"x.zip": inner}), zip_of(**{"b.dcm": inner, "c.dcm": b"x"})):
        refused = running.post(("scan", "outer.zip", content))
        assert refused.status_code == 422
        assert "an archive lies within" in refused.json()["detail"]
    assert left_in(running) == []


def test_a_scan_that_takes_more_once_it_is_read_than_is_taken_is_refused(serve, settings):
    with serve(settings(max_upload_gb=0.001)) as running:
        scan = gzip.compress(nifti_of(shape=(200, 200, 100)))
        case = running.finished(running.upload(("scan", "a.nii.gz", scan))["id"])
        assert case["state"] == "failed"
        assert "once it is read" in case["error"]["message"]


def test_uploads_that_are_too_large_are_refused_told_or_not(serve, settings):
    with serve(settings(max_upload_gb=0.001)) as running:
        refused = running.post(("scan", "a.nii", bytes(1 << 21)))
        assert refused.status_code == 413
        boundary = "x"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\n'
        )

        def pieces():
            yield head.encode()
            for _ in range(20):
                yield bytes(1 << 17)

        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        chunked = running.client.post("/v1/cases", content=pieces(), headers=kind)
        assert chunked.status_code == 413
        assert left_in(running) == []


def test_too_many_files_and_fields_are_refused(running, monkeypatch):
    monkeypatch.setattr("flarekit.service.routes._MOST_FILES", 3)
    many = [("scan", "a.dcm", b"x")] * 4
    assert running.post(*many).status_code == 413
    fields = {f"field{number}": "x" for number in range(100)}
    assert running.post(("scan", "a.nii", nifti_of()), **fields).status_code == 413
    long = running.post(("scan", "a.nii", nifti_of()), mode="x" * 100_000)
    assert long.status_code == 413
    assert left_in(running) == []


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x\r\n",
        b"--x\r\n\r\nno headers\r\n--x--\r\n",
        b"garbage before --x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\nshort',
        b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n--x--\r\n",
        b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n--x--\r\n",
    ],
)
def test_damaged_multipart_bodies_are_refused(running, body):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = running.client.post("/v1/cases", content=body, headers=kind)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert left_in(running) == []


def test_a_sender_that_pauses_is_told_so_and_leaves_nothing(serve, settings):
    with serve(settings(stall_s=0.2)) as running:
        port = int(running.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(
                b"POST /v1/cases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
            link.settimeout(60)
            assert b" 408 " in link.recv(4096)
        assert left_in(running) == []
        assert running.service.uploads == set()
        running.gate.clear()
        assert running.patiently(("scan", "a.nii", nifti_of())).status_code == 202


def test_a_sender_that_hangs_up_leaves_nothing(running, monkeypatch):
    reserve, arrived = running.service.reserve, []
    monkeypatch.setattr(
        running.service, "reserve", lambda: arrived.append(reserve()) or arrived[-1]
    )
    port = int(running.url.rpartition(":")[2])
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(
                b"POST /v1/cases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                b'Content-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\nabc'
            )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        len(arrived) < 3 or left_in(running) or running.service.uploads
    ):
        time.sleep(0.02)
    assert len(arrived) == 3
    assert left_in(running) == []
    assert running.service.uploads == set()


def test_a_case_without_a_folder_keeps_no_place_in_the_queue(running, monkeypatch):
    monkeypatch.setattr(type(running.service), "folder_of", lambda *_: Path("/dev/null/case"))
    for _ in range(running.service.settings.queue + 1):
        with pytest.raises(NotADirectoryError):
            running.service.reserve()
    assert running.service.uploads == set()


def test_connections_that_bring_no_request_are_closed(running, monkeypatch):
    monkeypatch.setattr("flarekit.service.server._HEADERS_S", 0.2)
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(60)
        try:
            link.sendall(b"GET / HTTP/1.1\r\nHo")
            assert link.recv(100) == b""
        except ConnectionError:
            pass  # it was closed before all was sent


def test_a_detached_header_is_not_followed(running):
    header = b"ObjectType = Image\nNDims = 3\nElementDataFile = /etc/passwd\n"
    refused = running.post(("scan", "a.mhd", header))
    assert "header without its voxels" in refused.json()["detail"]
    case = running.finished(running.upload(("scan", "a.mha", header))["id"])
    assert case["state"] == "failed"
    assert "root:" not in str(case)


def test_messages_lose_what_headers_and_paths_say(tmp_path):
    said = f"{tmp_path}/CT.nii: series 'DOE^JOHN' and \"O'NEIL\" of {tmp_path}; the scan's own 'cut"
    cleaned = without_names(said, tmp_path)
    assert (
        cleaned
        == "CT.nii: series (its text) and (its text) of the upload; the scan's own (its text)"
    )


def test_a_nrrd_is_read_but_no_file_that_it_names(running, tmp_path):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.full((4, 5, 6), 200, np.int16))
    SimpleITK.WriteImage(image, tmp_path / "scan.nrrd", useCompression=True)
    whole = (tmp_path / "scan.nrrd").read_bytes()
    case = running.finished(running.upload(("scan", "a.nrrd", whole))["id"])
    assert (case["state"], case["result"]["shape"]) == ("done", [6, 5, 4])
    head, _, voxels = whole.partition(b"\n\n")
    for field in (b"data file: /etc/passwd", b"datafile: ../x", b"Data File: LIST"):
        case = running.finished(
            running.upload(("scan", "a.nrrd", head + b"\n" + field + b"\n\n" + voxels))["id"]
        )
        assert (case["state"], "not hold its own voxels" in case["error"]["message"]) == (
            "failed",
            True,
        )
    huge = head.replace(b"sizes: 6 5 4", b"sizes: 60000 50000 40000")
    case = running.finished(running.upload(("scan", "a.nrrd", huge + b"\n\n" + voxels))["id"])
    assert "once it is read" in case["error"]["message"]


def test_a_disk_that_is_full_is_the_answer_whoever_finds_it(running, monkeypatch, nifti):
    monkeypatch.setattr(Path, "open", lambda *_, **_how: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    refused = running.post(("scan", "a.nii", nifti))
    monkeypatch.undo()
    assert (refused.status_code, left_in(running)) == (507, [])
    assert "no space for the upload" in refused.json()["detail"]

    def full(*_, **__):
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute("PRAGMA max_page_count = 1")
            database.execute("CREATE TABLE cases (id)")

    for place, fault in ((Path, "mkdir"), (running.service.store, "add")):
        broken = full if fault == "add" else full_disk
        monkeypatch.setattr(place, fault, broken)
        refused = running.post(("scan", "a.nii", nifti))
        monkeypatch.undo()
        assert (refused.status_code, left_in(running)) == (507, [])
        assert "the service cannot keep its files: " in refused.json()["detail"]
    assert running.post(("scan", "a.nii", nifti)).status_code == 202


def test_what_is_no_fault_of_the_disk_is_not_called_one(running, monkeypatch, nifti):
    def lost(*_, **__):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    def locked(*_, **__):
        raise sqlite3.OperationalError("database is locked")

    for fault in (lost, locked):
        monkeypatch.setattr(running.service.store, "add", fault)
        refused = running.post(("scan", "a.nii", nifti))
        monkeypatch.undo()
        assert refused.status_code == 500
        assert "within the service" in refused.json()["detail"]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
