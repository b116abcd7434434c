"""The page: what it says, that it needs no network, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flarekit.core.readings import Unsupported
from flarekit.profiler.page.axes import Axes, number, ticks
from flarekit.profiler.page.html import page
from flarekit.profiler.page.markup import Markup, join, tag
from flarekit.profiler.pictures import write_picture
from flarekit.profiler.records import Excess, Tolerances
from tests.profiler.made import made_case, made_report, made_samples

GONE = Unsupported(not_supported="NVML <not> found")
STAGES = {"start": 0.2, "load": 2.0, "read": 0.5, "tiles": 3.0, "write": 0.1, "exit": 0.1}
SLOW = [1000.0] * 40 + [3000.0] * 80 + [4700.0] * 40


def drawn(*cases, gpu=(1000.0, 3000.0, 1000.0)):
    report = made_report(*cases)
    return page(report, {case.name: made_samples(gpu) for case in cases})


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))
        if name not in ("meta",):
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.found.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.words.append(data)


def test_every_element_is_closed_and_nothing_points_outside():
    text = drawn(made_case(stages=STAGES))
    elements = Elements(text)
    assert elements.open == []
    for name, attributes in elements.found:
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), name
        assert name not in ("link", "iframe", "img", "object")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp|WebSocket", text)


def test_curves_areas_and_the_tolerance_are_drawn():
    elements = Elements(drawn(made_case(gpu=SLOW), gpu=SLOW))
    classes = [attributes.get("class", "") for _, attributes in elements.found]
    assert classes.count("area gpu") == 1
    assert classes.count("line gpu") == 1
    assert classes.count("line ram") == 1
    assert "tolerance" in classes
    assert "tolerance 4,096 MiB" in elements.words


def test_the_floor_of_a_chart_is_its_axis_and_its_corners_are_the_ends_of_the_scales():
    axes = Axes(width=700, height=300, x_max=10, y_max=200)
    left, floor = axes.x(0), axes.y(0)
    right, top = axes.x(10), axes.y(200)
    assert 0 < left < right < 700
    assert 0 < top < floor < 300
    assert axes.x(5) == pytest.approx((left + right) / 2)
    assert axes.y(50) == pytest.approx(floor - (floor - top) / 4)
    elements = Elements("".join(map(str, axes.frame("seconds", "MiB"))))
    (line,) = [each for _, each in elements.found if each.get("class") == "axis"]
    assert [float(line[name]) for name in ("x1", "y1", "x2", "y2")] == [left, floor, right, floor]


@pytest.mark.parametrize(("peak", "arrow"), [(1600.0, True), (1700.0, False)])
def test_a_tolerance_far_above_the_curve_is_an_arrow(peak, arrow):
    gpu = (1000.0, peak, 1000.0)
    words = Elements(drawn(made_case(gpu=gpu), gpu=gpu)).words
    assert ("↑ tolerance 4,096 MiB" in words, "tolerance 4,096 MiB" in words) == (arrow, not arrow)


def test_a_stage_is_as_wide_as_it_is_long_and_has_its_own_colour():
    elements = Elements(drawn(made_case(stages={**STAGES, "unheard_of": 1.0})))
    bars = [each for name, each in elements.found if name == "rect"]
    widths = {each["class"]: float(each["width"]) + 1.5 for each in bars}  # a gap between two
    assert set(widths) == {*(f"stage-{name}" for name in STAGES), "stage-other"}
    assert widths["stage-tiles"] == pytest.approx(1.5 * widths["stage-load"], abs=0.1)
    assert widths["stage-load"] == pytest.approx(2 * widths["stage-other"], abs=0.1)


@pytest.mark.parametrize(("counting", "figure"), [("sample", "100"), ("maximum", "1,000")])
def test_the_memory_above_the_tolerance_is_counted_as_the_preset_does(counting, figure):
    case = made_case(
        excess=Excess(
            time_s=0.0, gpu_max_mib=1000.0, gpu_area_mib_s=100.0, gpu_area_trapezoid_mib_s=90.0
        )
    )
    report = replace(made_report(case), tolerances=Tolerances(counting=counting))
    text = page(report, {case.name: made_samples((1000.0, 5096.0, 1000.0))})
    assert re.findall(r'<td class="over">([^<]*)</td>', text) == [figure]


def test_verdicts_are_said_in_words():
    failed = made_case("c_0000", failures=("exit code 3; last line: <b>",))
    text = drawn(made_case(), made_case("b_0000", time_s=20.0), failed)
    words = Elements(text).words
    assert words.count("✓ within the limits") == 1
    assert "✗ time 20.00 s, limit 15 s" in words
    assert words.count("✗ exit code 3; last line: <b>") == 2
    assert "1 of 3" in words
    assert "<b>&" not in text


def test_a_missing_gpu_is_said_once_and_its_columns_are_left_out():
    cases = [made_case(name, gpu=(GONE, GONE)) for name in ("a_0000", "b_0000")]
    of_machine = f"not supported: {GONE.not_supported}"
    text = page(
        replace(made_report(*cases), environment={"gpu": of_machine, "cpu": "a CPU"}),
        {case.name: made_samples((GONE, GONE)) for case in cases},
    )
    elements = Elements(text)
    said = [word for word in elements.words if "NVML <not> found" in word]
    assert said == ["No GPU was measured, and its figures are left out: NVML <not> found"]
    assert elements.words.count("not supported") == 2  # the kernel's own peak of two cases
    top, rest = "".join(elements.words).split("Others, on other hardware")
    assert "max GPU" not in top
    assert "GPU memory (MiB)" not in top
    assert "max GPU" in rest
    assert "area gpu" not in [attributes.get("class") for _, attributes in elements.found]


@pytest.mark.parametrize(("convention", "shown"), [("flare", True), ("autopet", False)])
def test_flare_s_results_stand_beside_those_of_flare_alone(convention, shown):
    report = replace(made_report(made_case()), environment={"convention": convention})
    text = page(report, {"a_0000": made_samples((1000.0, 3000.0, 1000.0))})
    assert ("Others, on other hardware" in text) == shown
    assert ("others, other hardware" in text) == shown


def test_a_gpu_that_is_missing_in_some_cases_keeps_its_columns():
    report = made_report(made_case("a_0000", gpu=(GONE, GONE)), made_case("b_0000"))
    text = page(
        report,
        {"a_0000": made_samples((GONE, GONE)), "b_0000": made_samples((1000.0, 3000.0, 1000.0))},
    )
    words = Elements(text).words
    assert "max GPU (MiB)" in words
    assert "GPU memory: not supported: NVML <not> found" in words
    assert words.count("not supported") == 6  # of the GPU, and the kernel's own peak of two cases


def test_on_a_narrow_screen_nothing_is_wider_than_it():
    style = drawn(made_case()).partition("<style>")[2].partition("</style>")[0]
    wide = re.findall(r"(?:min-width: *|minmax\((?:min\()?)([\d.]+)(px|rem)", style)
    assert 300 < max(float(n) * (16 if unit == "rem" else 1) for n, unit in wide) <= 400
    assert not re.search(r"minmax\(\d+px", style)  # unless the screen is as wide
    assert "@media (max-width: 480px)" in style
    elements = Elements(drawn(made_case(stages=STAGES)))
    scrolled = [a for name, a in elements.found if name == "div" and a.get("class") == "scroll"]
    tables = [
        a for name, a in elements.found if name == "table" and a.get("class") != "words facts"
    ]
    assert len(scrolled) == len(tables)  # wide tables scroll within the page


def test_stages_slices_references_and_environment_are_there():
    words = Elements(drawn(made_case(stages=STAGES, traits={"engine": "openvino"}))).words
    for expected in ("Stages", "tiles: 3.000 s", "openvino", "Time against slices", "a CPU"):
        assert expected in words
    assert "a_0000: 9.00 s, 41 slices" in words
    assert sum("other hardware" in word for word in words) >= 18


def test_a_report_without_stages_or_scans_has_no_such_chart():
    words = Elements(drawn(made_case(shape_XYZ=None))).words
    assert "Stages" not in words
    assert "Time against slices" not in words


def test_a_report_of_nothing_is_a_page():
    assert "0 of 0" in Elements(drawn()).words


def test_text_is_escaped_once():
    assert tag("p", "a < b", tag("i", "&"), title='"x"') == (
        '<p title="&quot;x&quot;">a &lt; b<i>&amp;</i></p>'
    )
    assert join([Markup("<br/>"), None, ["x"]]) == "<br/>x"


@pytest.mark.parametrize(
    ("most", "expected"), [(10, [0, 2, 4, 6, 8, 10]), (0, [0]), (1.3, [0, 0.5, 1.0])]
)
def test_ticks_are_round(most, expected):
    assert ticks(most) == pytest.approx(expected)


def test_numbers_are_written_as_one_writes_them():
    assert [number(v) for v in (0, 2.5, 12.345, 4096, 405109.4)] == [
        "0",
        "2.5",
        "12.3",
        "4,096",
        "405,109",
    ]


@pytest.mark.long
def test_the_picture_is_a_png(tmp_path):
    write_picture(tmp_path / "a.png", made_case(), made_samples([1.0, GONE, 2.0]), Tolerances())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def browser():
    """Return a function: page -> what is in it after scripts ran, and a picture of it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine")

    def look(path: Path, *extra: str) -> bytes:
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            # every name resolves to nothing: what needs the network is missing
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1320,2400"),
            f"--user-data-dir={path.parent / 'profile'}",
        ]
        done = subprocess.run(
            [*command, *extra, path.as_uri()], capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return look


@pytest.mark.slow
def test_a_browser_without_network_shows_curves_and_verdicts(tmp_path, browser):
    case = made_case(gpu=SLOW, time_s=16.0, stages=STAGES)
    text = page(made_report(case), {case.name: made_samples(SLOW)})
    # asks the browser itself where things are, and what the pointer reads
    probe = """
    <script>
    const seen = {};
    for (const [name, what] of Object.entries({
      area: "polygon.area.gpu", line: "polyline.line.gpu", tolerance: "line.tolerance",
      verdict: "td.verdict .broken", stage: "rect.stage-tiles", other: "circle.other"})) {
      const box = document.querySelector(what).getBoundingClientRect();
      seen[name] = [box.width, box.height, getComputedStyle(document.querySelector(what)).display];
    }
    const svg = document.querySelector("svg.curves"), box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent("pointermove",
      {clientX: box.left + box.width / 2, clientY: box.top + 10}));
    seen.readout = svg.parentElement.querySelector(".readout").textContent;
    seen.requests = performance.getEntriesByType("resource").length;
    document.title = JSON.stringify(seen);
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", probe), encoding="utf-8")
    found = browser(path, "--dump-dom").decode()
    seen = json.loads(unescape(re.search("<title>(.*?)</title>", found)[1]))
    assert seen["requests"] == 0
    for name in ("area", "line", "verdict", "stage", "other"):
        width, height, display = seen[name]
        assert width > 2, name
        assert height > 2, name
        assert display != "none"
    assert seen["tolerance"][0] > 100
    assert re.match(r"7\.\d s · device, total - free \(official\): 3,000 MiB", seen["readout"])


@pytest.mark.slow
def test_a_browser_paints_the_curves(tmp_path, browser):
    from matplotlib import image

    case = made_case(gpu=SLOW, time_s=16.0)
    path = tmp_path / "page.html"
    text = page(made_report(case), {case.name: made_samples(SLOW)})
    path.write_text(text, encoding="utf-8")
    browser(path, f"--screenshot={tmp_path / 'page.png'}")
    pixels = (image.imread(tmp_path / "page.png")[..., :3] * 255).round().astype(int)
    for name, colour in (("GPU line", (0x2A, 0x78, 0xD6)), ("memory line", (0x13, 0x8A, 0x63))):
        assert (abs(pixels - colour).max(axis=-1) <= 3).sum() > 200, name


@pytest.mark.slow
def test_printed_it_keeps_its_colours_and_breaks_no_chart(tmp_path, browser):
    case = made_case(gpu=SLOW, time_s=16.0, stages=STAGES)
    cases = [replace(case, name=f"{letter}_0000") for letter in "abcdef"]
    path = tmp_path / "page.html"
    text = page(made_report(*cases), {each.name: made_samples(SLOW) for each in cases})
    path.write_text(text, encoding="utf-8")
    browser(path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 9
