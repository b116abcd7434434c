"""The client against a service."""

from __future__ import annotations

import socket
import threading

import pytest

from flarekit.client import Client, ServiceError
from tests.conventions.dicom.dicom_files import ct_voxels, write_series
from tests.service.serving import nifti_of


@pytest.fixture
def client(running):
    with Client(running.url) as found:
        yield found


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti_of())
    return path


def test_a_scan_is_segmented_and_its_files_are_saved(client, scan, tmp_path):
    case = client.segment(scan)
    assert case.state == "done"
    assert case.volumes_ml["liver"] == 0.001
    assert case.statistics()[0]["label"] == "liver"
    assert case.save_mask(tmp_path / "mask.nii.gz").stat().st_size > 0
    assert case.save("scan", tmp_path / "again.nii").read_bytes() == scan.read_bytes()
    assert [each.id for each in client.cases()] == [case.id]
    client.delete(case.id)
    assert client.cases() == []


@pytest.mark.long
def test_channels_and_series_are_sent(client, scan, tmp_path):
    petct = client.segment({"CT": scan, "PET": scan}, predictor="att_umamba_petct")
    assert client.click(petct.id, {"tumor": [(5, 4, 3)]}).volumes_ml == {"lesion": 0.002}
    write_series(tmp_path / "series", ct_voxels())
    assert client.segment(tmp_path / "series").content["is_dicom"]


def test_what_went_wrong_is_told_in_the_services_words(client, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"junk")
    with pytest.raises(ServiceError, match=r"CT\.nii\.gz: is not a NIfTI file"):
        client.segment(broken)
    with pytest.raises(ServiceError, match="no such case") as refused:
        client.case("nothing")
    assert refused.value.status == 404
    with pytest.raises(ServiceError, match="no such case"):
        list(client.events("nothing"))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # it has the port, and nobody listens there
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Client(address) as nobody, pytest.raises(ServiceError, match="not answer"):
            nobody.cases()


@pytest.mark.long
def test_a_full_queue_is_waited_for(serve, settings, scan, monkeypatch):
    monkeypatch.setattr("flarekit.service.service._USUAL_CASE_S", 0.1)
    with serve(settings(queue=1)) as running, Client(running.url) as client:
        running.gate.clear()
        first = client.submit(scan)
        running.until(first.id, lambda case: case["state"] == "running")
        client.submit(scan)
        with pytest.raises(ServiceError, match="no more are taken"):
            client.submit(scan)
        threading.Timer(0.3, running.gate.set).start()
        assert client.segment(scan).state == "done"


def test_a_cancelled_case_is_told_so(running, client, scan):
    running.gate.clear()
    case = client.submit(scan)
    client.cancel(case.id)
    with pytest.raises(ServiceError, match="cancelled"):
        client.wait(case.id)


def test_a_service_that_ends_in_the_middle_of_an_answer_is_told_so():
    """As one that is killed: events and files alike."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_in_part():
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        thread = threading.Thread(target=answer_in_part)
        thread.start()
        with Client(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            with pytest.raises(ServiceError, match="does not answer"):
                list(client.events("any"))
            with pytest.raises(ServiceError, match="does not answer"):
                client.get("/v1/cases/any/mask")
        thread.join()
