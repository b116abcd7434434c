"""The page in a real browser: Debian's Chromium, driven by Playwright, drawing without a GPU."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from matplotlib.image import imread

import flarekit
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from tests.conventions.dicom.dicom_files import ct_voxels, write_series
from tests.service.serving import nifti_of, serving

pytestmark = pytest.mark.browser
PAGE = Path(flarekit.__file__).parent / "web" / "dist" / "index.html"
DRAWN = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
CT = nifti_of(4000, (40, 36, 20))


@pytest.fixture(scope="module")
def browser():
    """Return Chromium, or skip where it, Playwright or the built page is absent."""
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None or not PAGE.is_file():
        pytest.skip("needs Debian's chromium, pip install playwright, and make web")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=DRAWN)
        yield found
        found.close()


@contextlib.contextmanager
def opened(browser, url, **options):
    """Open the page and see to it that nothing is complained of and nobody else is asked."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 640}, **options})
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints, hosts = [], set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    page.on("request", lambda asked: hosts.add(asked.url))
    page.goto(url)
    page.wait_for_selector("#demo")
    yield page
    context.close()
    assert [each for each in complaints if "status of 4" not in each] == []
    foreign = [each for each in hosts if not each.startswith((f"{url}/", "blob:", "data:"))]
    assert foreign == []


def choose(page, *files):
    page.set_input_files(
        "#files",
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": data}
            for name, data in files
        ],
    )


def drawn(page) -> int:
    """Return how many colours the viewer shows, once it shows the same for a while."""
    seen = []
    while len(seen) < 3 or len(set(seen[-3:])) > 1:
        time.sleep(0.3)
        picture = imread(io.BytesIO(page.locator("#canvas").screenshot()))
        colours = np.unique((picture[..., :3] * 15).astype(int).reshape(-1, 3), axis=0)
        seen.append(len(colours))
    return seen[-1]


@contextlib.contextmanager
def holding(page, what):
    """Give the requests that the page makes meanwhile, and let them go on at the end."""
    held, released = [], []
    page.route(what, lambda route: route.continue_() if released else held.append(route))
    yield held
    released.append(True)
    for route in held:
        route.continue_()


def waited(page, holds):
    """Wait until something holds."""
    for _ in range(1200):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError(holds)


def saved(page, what) -> bytes:
    with page.expect_download() as download:
        page.click(f'[data-file="{what}"]')
    return Path(download.value.path()).read_bytes()


def test_a_scan_is_dropped_segmented_looked_at_and_its_mask_kept(browser, running):
    with opened(browser, running.url) as page:
        assert page.is_visible("#empty")
        choose(page, ("DOE_JOHN.nii", CT))
        page.wait_for_selector("#toolbar:visible")
        page.click("#start")
        page.wait_for_selector("table.labels")
        assert page.locator("table.labels tbody tr").count() == 13
        assert page.locator('tr:has([data-label="liver"]) .number').inner_text() == "4.00"
        assert page.locator('[data-label="spleen"]').is_disabled()
        with_liver = drawn(page)
        page.get_by_label("Show Liver").uncheck()
        assert 1 < drawn(page) < with_liver
        page.get_by_label("Show Liver").check()
        for view in ("axial", "coronal", "sagittal", "3d", "all"):
            page.click(f'[data-view="{view}"]')
            assert page.get_attribute(f'[data-view="{view}"]', "aria-pressed") == "true"
        page.wait_for_selector("[data-measured]")
        page.click('[data-label="liver"]')
        page.wait_for_selector("#location >> text=CT 200")
        case_id = page.get_attribute("body", "data-ready")
        mask = running.client.get(f"/v1/cases/{case_id}/mask").content
        assert saved(page, "mask") == mask
        assert b"liver" in saved(page, "statistics.csv")
        assert saved(page, "picture").startswith(b"\x89PNG")
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") == "dark"


def test_a_dicom_series_is_shown_once_the_service_has_read_it(browser, running, tmp_path):
    write_series(tmp_path / "series", ct_voxels(), PatientName="DOE^JANE")
    files = [
        (f"IM{k}", path.read_bytes()) for k, path in enumerate((tmp_path / "series").iterdir())
    ]
    with opened(browser, running.url) as page:
        choose(page, *files)
        assert "6 files" in page.locator(".files").inner_text()
        page.click("#start")
        page.wait_for_selector("table.labels")
        assert drawn(page) > 1
        assert b"DICM" in saved(page, "segmentation.dcm")[:200]


def test_a_reload_in_the_middle_loses_nothing(browser, running):
    running.gate.clear()
    with opened(browser, running.url) as page:
        choose(page, ("a.nii", CT))
        page.click("#start")
        page.wait_for_selector(".said >> text=/^Tile/")
        page.reload()
        page.wait_for_selector(".said >> text=/^Tile/")
        running.gate.set()
        page.wait_for_selector("table.labels")
        page.reload()
        page.wait_for_selector("table.labels")


def test_a_broken_file_is_told_in_words(browser, running):
    with opened(browser, running.url) as page:
        choose(page, ("<img src=x onerror=alert(1)>.nii.gz", b"junk"))
        assert page.locator(".file .name").inner_text().startswith("<img")
        page.click("#start")
        page.wait_for_selector(".problem")
        said = page.locator(".problem").inner_text()
        assert "CT.nii.gz: is not a NIfTI file" in said
        assert "convert it to NIfTI" in said
        assert page.is_visible("#start")


def test_a_case_is_cancelled(browser, running):
    running.gate.clear()
    with opened(browser, running.url) as page:
        choose(page, ("a.nii", CT))
        page.click("#start")
        page.wait_for_selector(".said >> text=/^Tile/")
        page.click("#cancel")
        page.wait_for_selector(".problem")
        assert "cancelled" in page.locator(".problem").inner_text()
        assert page.locator(".state.cancelled").count() == 1


def test_clicks_correct_a_petct(browser, running):
    files = [("x_0000.nii", nifti_of(40, (40, 36, 20))), ("x_0001.nii", nifti_of(40, (40, 36, 20)))]
    with opened(browser, running.url) as page:
        choose(page, *files)
        page.click("#start")
        page.wait_for_selector("section.clicks")
        page.keyboard.press("2")
        page.keyboard.press("t")
        page.locator("#canvas").click(position={"x": 400, "y": 300})
        page.wait_for_selector('[data-revision="2"]')
        assert page.locator('tr:has([data-label="lesion"]) .number').inner_text() == "0.04"
        assert "1 added" in page.locator(".clicks .quiet").inner_text()
        page.click("#undo")
        page.wait_for_selector('[data-revision="3"]')


def test_no_click_is_lost_that_is_made_while_another_is_answered(browser, running):
    files = [("x_0000.nii", nifti_of(40, (40, 36, 20))), ("x_0001.nii", nifti_of(40, (40, 36, 20)))]
    with opened(browser, running.url) as page:
        choose(page, *files)
        page.click("#start")
        page.wait_for_selector("[data-measured]")
        page.keyboard.press("2")
        page.keyboard.press("t")
        with holding(page, "**/clicks") as held:
            page.locator("#canvas").click(position={"x": 400, "y": 300})
            waited(page, lambda: held)
            page.locator("#canvas").click(position={"x": 420, "y": 310})
            page.locator("#canvas").click(position={"x": 440, "y": 320})
            page.click("#undo")
            page.wait_for_timeout(100)
            assert len(held) == 1
        page.wait_for_selector('[data-revision="3"]')
        assert "2 added" in page.locator(".clicks .quiet").inner_text()

        page.wait_for_selector('[data-measured="3"]')  # its own statistics are not those held
        with holding(page, "**/statistics") as held:
            page.click("#undo")
            waited(page, lambda: held)
            page.click("#undo")
        page.wait_for_selector('[data-revision="5"]')
        assert "No clicks yet" in page.locator(".clicks .quiet").inner_text()


def test_the_page_asks_for_a_token_where_the_service_needs_one(browser, settings):
    token = "t" * 32
    with serving(settings(tokens=(token,))) as running:
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.url)
        page.fill("#token", token)
        page.click("dialog button")
        page.wait_for_selector("#demo")
        context.close()


def test_a_phone_shows_everything_below_each_other(browser, running):
    phone = {"width": 420, "height": 900}
    with opened(browser, running.url, viewport=phone, has_touch=True, is_mobile=True) as page:
        choose(page, ("a.nii", CT))
        page.click("#start")
        page.wait_for_selector("table.labels")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        page.goto(f"{running.url}/docs")
        page.wait_for_selector(".operation")
        page.goto(running.url)


@pytest.mark.slow  # without a browser they are in test_real_scans.py
@pytest.mark.data
def test_real_scans_in_a_real_service(browser, shared, tmp_path):
    """The demo, a real CT whose mask is the command line's, and a click that changes a PET/CT."""
    command = [
        sys.executable,
        "-m",
        "flarekit.cli.main",
        "serve",
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    command += ["--data", str(tmp_path / "data"), "-p", "abdomen_ct", "-p", "att_umamba_petct"]
    environment = {k: v for k, v in os.environ.items() if k != "FLAREKIT_ENGINE"}
    log = tmp_path / "log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=environment, stderr=stream) as service,
    ):
        try:
            while (told := re.search(r"the page is at (\S+)/", log.read_text())) is None:
                assert service.poll() is None, log.read_text()
                time.sleep(0.1)
            _drive_real_scans(browser, shared, tmp_path, told[1])
        finally:
            service.terminate()
            service.wait(timeout=120)


def _drive_real_scans(browser, shared, tmp_path, url):
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                break
        time.sleep(0.1)
    petct = shared / "data" / "Dataset002_PETCT" / "imagesTr"
    with opened(browser, url) as page:
        page.set_default_timeout(120_000)
        page.click("#demo")
        page.wait_for_selector("table.labels")
        page.click("#new")
        scan = shared / "data" / "cases" / "example_ct_0000.nii.gz"
        page.set_input_files("#files", scan)
        page.click("#start")
        page.wait_for_selector("table.labels")
        mask = saved(page, "mask")
        page.click("#new")
        page.set_input_files("#files", [petct / f"STS_001_000{number}.nii.gz" for number in (0, 1)])
        page.click("#start")
        page.wait_for_selector("section.clicks")
        page.keyboard.press("2")
        page.keyboard.press("t")
        page.locator("#canvas").click(position={"x": 300, "y": 250})
        page.wait_for_selector('[data-revision="2"]')
        seconds = re.search(r"Corrected in ([\d.]+) s", page.locator(".clicks .quiet").inner_text())
        assert float(seconds[1]) < 2
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / scan.name).symlink_to(scan)
    options = Options(device="cpu", engine="openvino")
    segment_folder(find_predictor("abdomen_ct"), tmp_path / "in", tmp_path / "out", options)
    written = (tmp_path / "out" / "example_ct.nii.gz").read_bytes()
    assert mask == written
