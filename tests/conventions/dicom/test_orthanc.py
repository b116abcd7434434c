"""What an archive makes of the objects: Debian's Orthanc takes, decodes and returns them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pydicom
import pytest

from tests.conventions.dicom.dicom_files import write_series
from tests.conventions.dicom.test_also import LABELS, written

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def ask(tmp_path):
    """Send a request to an Orthanc that runs for the test alone."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Debian's package orthanc is not installed")
    ports = []

    def send(path, content=None):
        request = urllib.request.Request(f"http://127.0.0.1:{ports[-1]}{path}", data=content)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read()

    for number in range(5):  # another process may be faster to take a port
        ports.append(free_port())
        folder = tmp_path / str(number)
        folder.mkdir()
        with started(folder, ports[-1]) as server:
            if answers(server, send, str(folder)):
                yield send
                return
    pytest.fail("Orthanc does not start")


@contextmanager
def started(folder, port):
    """Run an Orthanc whose name is that of its folder."""
    settings = folder / "orthanc.json"
    facts = {
        "Name": str(folder),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "AuthenticationEnabled": False,
    }
    settings.write_text(json.dumps(facts))
    with subprocess.Popen(["Orthanc", settings], stderr=subprocess.DEVNULL) as server:
        try:
            yield server
        finally:
            server.terminate()


def answers(server, send, name):
    """Return whether this Orthanc answers, and not another; waits for it while it runs."""
    while server.poll() is None:
        try:
            return json.loads(send("/system"))["Name"] == name
        except urllib.error.URLError:
            time.sleep(0.1)
    return False


def test_orthanc_keeps_the_objects_in_the_study_of_their_images(ask, tmp_path):
    label_map = np.zeros((8, 60, 80), np.uint8)  # Orthanc draws 1 bit only of whole bytes a row
    label_map[2:6, 10:40, 8:50], label_map[3:5, 45:55, 60:75] = 3, 5
    series, out = tmp_path / "series", tmp_path / "out"
    write_series(series, np.zeros(label_map.shape, np.int16))
    segmentation, (contours, _), _ = written(series, label_map, out)

    for path in [*series.iterdir(), segmentation, contours]:
        assert json.loads(ask("/instances", path.read_bytes()))["Status"] == "Success"

    (study,) = json.loads(ask("/studies"))
    of_study = json.loads(ask(f"/studies/{study}/series"))
    assert Counter(each["MainDicomTags"]["Modality"] for each in of_study) == Counter(
        ["CT", "SEG", "RTSTRUCT"]
    )
    one = {each["MainDicomTags"]["Modality"]: each["Instances"][0] for each in of_study}
    assert ask(f"/instances/{one['SEG']}/file") == segmentation.read_bytes()
    assert ask(f"/instances/{one['RTSTRUCT']}/file") == contours.read_bytes()
    frames = json.loads(ask(f"/instances/{one['SEG']}/frames"))
    assert len(frames) == int(pydicom.dcmread(segmentation).NumberOfFrames)
    assert ask(f"/instances/{one['SEG']}/frames/0/image-uint8").startswith(b"\x89PNG")
    tags = json.loads(ask(f"/instances/{one['RTSTRUCT']}/simplified-tags"))
    assert [each["ROIName"] for each in tags["StructureSetROISequence"]] == list(LABELS)
