from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace

import gcapi.client
import pytest

from flarekit.cli.console import Console
from flarekit.cli.submit import run_submit
from flarekit.core.errors import InputError, OutputError, UsageError
from flarekit.images.submit import Request, submit
from flarekit.images.submit.errors import PlatformError, UnreachableError
from flarekit.images.submit.inputs import Interface, Socket, find_cases, read_case
from flarekit.images.submit.wait import Pace
from tests.images.fake_platform import (
    AGE,
    CLICKS,
    CT,
    DROP,
    FLAG,
    MASK,
    POINTS,
    SIGNATURE,
    TOKEN,
    make_certificate,
    make_socket,
    serve,
)

PACE = Pace(retry_s=0.0001)
LOOK = "GET /api/v1/algorithms/jobs/"
JOB = "0b1c1e5e-6a33-4d0f-9f6e-0d4a3c2b1a00"


class Told:
    """What the listener was told."""

    def __init__(self):
        self.lines, self.errors = [], []

    def say(self, line):
        self.lines.append(line)

    def error(self, message, fix):
        self.errors.append(f"{message}; {fix}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    return make_certificate(folder), folder / "ca.pem"


@pytest.fixture
def platform(certificate, monkeypatch):
    context, authority = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    fake, http = serve(context)
    yield fake
    http.shutdown()
    http.server_close()


class Clock:
    """Time that passes while somebody sleeps, and only then."""

    def __init__(self):
        self.now_s, self.pauses_s = 1000.0, []

    def monotonic(self):
        return self.now_s

    def sleep(self, pause_s):
        self.now_s += pause_s
        self.pauses_s.append(pause_s)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("flarekit.images.submit.time", clock)
    monkeypatch.setattr("flarekit.images.submit.wait.time", clock)
    return clock


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def request_for(platform, tmp_path):
    """Return a function that makes a request to the fake platform."""

    def make(**changes):
        request = Request(
            algorithm="petct",
            input_dir=tmp_path / "case",
            output_dir=tmp_path / "out",
            url=platform.url,
            pace=PACE,
        )
        return replace(request, **changes)

    return make


def write_image(path, voxels=b"\x01\x02\x03\x04\x05\x06\x07\x08"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
        b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
        b"DimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + voxels
    )
    return path.read_bytes()


def write_case(folder, *, clicks=False):
    """Write a PET/CT and return the content of its CT."""
    content = write_image(folder / "images" / "ct" / "a.mha", folder.name.encode() * 8)
    write_image(folder / "images" / "pet" / "b.mha")
    if clicks:
        (folder / "lesion-clicks.json").write_text('{"points": [{"point": [1, 2, 3]}]}')
    return content


def tree(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def only(outcomes):
    assert len(outcomes) == 1
    return outcomes[0]


# what happens when all is well


def test_a_case_is_sent_waited_for_and_fetched(platform, request_for, told, tmp_path):
    ct = write_case(tmp_path / "case")
    states = ["Validating inputs", "Queued", "Executing", "Executing", "Succeeded"]
    platform.statuses = lambda _values: states
    outcome = only(submit(request_for(), told))
    assert outcome.error is None
    [job] = platform.jobs
    assert outcome.job == job
    mask, flag = sorted(outcome.files, key=lambda path: path.suffix, reverse=True)
    assert (mask.parent, mask.suffix) == (tmp_path / "out/images/tumor-lesion-segmentation", ".mha")
    assert mask.read_bytes() == ct
    assert flag == tmp_path / "out" / "data-centric-model.json"
    assert json.loads(flag.read_text()) is True
    assert len(tree(tmp_path / "out")) == 2
    assert [line for line in told.lines if "sending" not in line and "files" not in line] == [
        f"case: job {job} is started",
        "case: Validating inputs",
        "case: Queued",
        "case: Executing",
        "case: Succeeded",
    ]


def test_what_is_in_the_folder_chooses_the_interface(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case", clicks=True)
    assert only(submit(request_for(), told)).error is None
    assert (tmp_path / "out/tables/lesions.csv").read_bytes() == b"id,ml\n"
    [job] = platform.jobs.values()
    assert job["values"]["lesion-clicks"] == (tmp_path / "case/lesion-clicks.json").read_bytes()


def test_values_are_sent_as_values_and_json_files_come_back(platform, request_for, told, tmp_path):
    platform.interfaces = [([CT, AGE, CLICKS], [POINTS])]
    write_case(tmp_path / "case", clicks=True)
    (tmp_path / "case" / "images" / "pet" / "b.mha").unlink()
    (tmp_path / "case" / "age.json").write_text("71")
    assert only(submit(request_for(), told)).error is None
    [job] = platform.jobs.values()
    assert job["values"]["age"] == 71
    assert json.loads((tmp_path / "out/found.json").read_text()) == {
        "points": [{"point": [1, 2, 3]}]
    }


def test_large_files_travel_in_parts_and_arrive_whole(
    platform, request_for, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(gcapi.client.UploadsAPI, "chunk_size", 37)
    ct = write_case(tmp_path / "case")
    outcome = only(submit(request_for(), told))
    parts = [len(upload["parts"]) for upload in platform.uploads.values()]
    assert max(parts) > 2 * gcapi.client.UploadsAPI.n_presigned_urls - 5
    assert any(path.read_bytes() == ct for path in outcome.files)


def test_every_subfolder_is_a_case_and_a_failed_one_takes_no_other_along(
    platform, request_for, told, tmp_path
):
    for name in ("a", "b", "c", "d"):
        write_case(tmp_path / "cases" / name)
    (tmp_path / "cases" / "b" / "images" / "pet" / "b.mha").unlink()
    (tmp_path / "cases" / "readme.txt").write_text("four cases")
    platform.statuses = lambda values: [
        "Queued",
        "Failed" if b"cccc" in values["ct"] else "Succeeded",
    ]
    outcomes = submit(request_for(input_dir=tmp_path / "cases"), told)
    assert [(each.name, each.error is None) for each in outcomes] == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", True),
    ]
    assert {path.split("/")[0] for path in tree(tmp_path / "out")} == {"a", "d"}
    for name in ("a", "d"):
        [mask] = (tmp_path / "out" / name).rglob("*.mha")
        assert mask.read_bytes().endswith(name.encode() * 8)
    assert len(told.errors) == 2
    assert told.errors[0].startswith(f"b: {tmp_path}/cases/b: has no file for pet (images/pet)")


def test_no_more_jobs_are_active_than_may_be(platform, request_for, told, tmp_path):
    for index in range(5):
        write_case(tmp_path / "cases" / f"case{index}")
    request = request_for(input_dir=tmp_path / "cases", pace=replace(PACE, at_once=2))
    assert all(each.error is None for each in submit(request, told))
    assert (len(platform.jobs), platform.most_active) == (5, 2)


def test_a_status_that_does_not_change_is_said_again_after_five_minutes(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Executing"] * 50 + ["Succeeded"]
    submit(request_for(), told)
    assert [line for line in told.lines if "now" in line] == [
        "case: Executing, for 5 min now",
        "case: Executing, for 10 min now",
    ]


def test_a_newer_client_is_mentioned_and_an_outdated_one_refused(
    platform, request_for, told, tmp_path, caplog
):
    write_case(tmp_path / "case")
    platform.latest = "99.0"
    with caplog.at_level(logging.INFO, "flarekit"):
        assert only(submit(request_for(), told)).error is None
    assert "version 99.0 is available" in caplog.text
    platform.oldest = "98.0"
    with pytest.raises(PlatformError, match="is too old") as raised:
        submit(request_for(), told)
    assert "pip install --upgrade gcapi" in raised.value.fix


# the folder


def sockets(*stated):
    return tuple(
        Socket(
            slug=each["slug"],
            path=each["relative_path"],
            kind=each["kind"],
            super_kind=each["super_kind"].casefold(),
        )
        for each in stated
    )


PLAIN = Interface(inputs=sockets(CT, make_socket("pet")), outputs=sockets(MASK))
WITH_CLICKS = Interface(inputs=(*PLAIN.inputs, *sockets(CLICKS)), outputs=sockets(MASK))
WITH_AGE = Interface(inputs=sockets(CT, AGE), outputs=sockets(FLAG))


@pytest.mark.parametrize("order", [(PLAIN, WITH_CLICKS), (WITH_CLICKS, PLAIN)])
@pytest.mark.parametrize("clicks", [False, True])
def test_the_interface_is_the_one_whose_inputs_are_all_there_and_all_there_is(
    tmp_path, order, clicks
):
    write_case(tmp_path, clicks=clicks)
    interface, given = read_case(tmp_path, order)
    assert interface is (WITH_CLICKS if clicks else PLAIN)
    assert [each.socket for each in given] == list(interface.inputs)
    assert all(each.file.is_file() for each in given)


def test_a_missing_input_is_named_with_its_socket(tmp_path):
    write_case(tmp_path)
    (tmp_path / "images" / "pet" / "b.mha").unlink()
    with pytest.raises(InputError) as raised:
        read_case(tmp_path, [PLAIN])
    assert "has no file for pet (images/pet)" in raised.value.message
    assert "the algorithm takes ct (images/ct) + pet (images/pet)" in raised.value.message


def test_a_surplus_input_is_named(tmp_path):
    write_case(tmp_path, clicks=True)
    write_image(tmp_path / "images" / "mr" / "c.mha")
    with pytest.raises(InputError) as raised:
        read_case(tmp_path, [PLAIN, WITH_CLICKS])
    assert raised.value.message.startswith(f"{tmp_path}: no socket takes images/mr/c.mha; ")


def test_hidden_files_are_no_inputs_and_links_are_followed(tmp_path):
    write_case(tmp_path / "there")
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "images").symlink_to(tmp_path / "there" / "images")
    (tmp_path / "case" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "there" / "images" / "ct" / "._a.mha").write_bytes(b"x")
    _, given = read_case(tmp_path / "case", [PLAIN])
    assert len(given) == 2


def test_inputs_json_says_where_sockets_are(tmp_path):
    write_case(tmp_path)
    (tmp_path / "images" / "ct").rename(tmp_path / "images" / "low-dose")
    listed = [{"interface": {"slug": "ct", "relative_path": "images/low-dose"}}]
    (tmp_path / "inputs.json").write_text(json.dumps(listed))
    _, given = read_case(tmp_path, [PLAIN])
    assert given[0].file == tmp_path / "images" / "low-dose" / "a.mha"


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"socket": {"slug": "ct"}}]', "not JSON"])
def test_an_inputs_json_that_lists_no_sockets_is_an_error(tmp_path, content):
    write_case(tmp_path)
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(InputError, match="inputs.json"):
        read_case(tmp_path, [PLAIN])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("images/ct/second.mha", b"x", "holds a.mha, second.mha; socket ct takes one"),
        ("images/ct/a.mha", b"", "is empty"),
        ("images/ct/a.mha", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("age.json", b"", "is empty"),
        ("age.json", b"null", "is null"),
        ("age.json", b"NaN", "holds NaN"),
        ("age.json", b"{", "is not JSON"),
    ],
)
def test_a_damaged_input_is_an_error_that_names_the_file(tmp_path, name, content, words):
    write_image(tmp_path / "images" / "ct" / "a.mha")
    (tmp_path / "age.json").write_text("71")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_case(tmp_path, [WITH_AGE])
    assert words in raised.value.message
    assert str(tmp_path) in raised.value.message


def test_an_image_of_another_format_is_an_error(tmp_path):
    write_image(tmp_path / "images" / "ct" / "a.mha")
    (tmp_path / "images" / "ct" / "a.mha").rename(tmp_path / "images" / "ct" / "a.nii.gz")
    (tmp_path / "age.json").write_text("71")
    with pytest.raises(InputError, match=r"holds a.nii.gz; socket ct takes one .mha or .tif"):
        read_case(tmp_path, [WITH_AGE])


def test_dicom_is_not_sent(tmp_path):
    (tmp_path / "images" / "study").mkdir(parents=True)
    (tmp_path / "images" / "study" / "1.dcm").write_bytes(b"x")
    interface = Interface(inputs=sockets(make_socket("study", "DICOM Image Set")), outputs=())
    with pytest.raises(InputError, match="DICOM image set"):
        read_case(tmp_path, [interface])


def test_a_folder_without_inputs_is_an_error_that_says_what_is_wanted(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no inputs; the algorithm takes ct \(images/ct\)"):
        find_cases(tmp_path, [PLAIN])
    with pytest.raises(InputError, match="is not a folder"):
        find_cases(tmp_path / "absent", [PLAIN])


# what the platform refuses


def test_without_a_token_nothing_is_asked(platform, request_for, told, monkeypatch):
    monkeypatch.delenv("GRAND_CHALLENGE_AUTHORIZATION")
    with pytest.raises(UsageError, match="GRAND_CHALLENGE_AUTHORIZATION is not set"):
        submit(request_for(), told)
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "three words here")
    with pytest.raises(UsageError, match="does not hold a token") as raised:
        submit(request_for(), told)
    assert "three" not in str(raised.value)
    assert platform.asked == []


def test_a_token_may_be_given_as_the_header_has_it(request_for, told, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", f"BEARER {TOKEN}\n")
    write_case(tmp_path / "case")
    assert only(submit(request_for(), told)).error is None


def test_a_rejected_token_is_an_error_that_names_the_variable(
    request_for, told, tmp_path, monkeypatch
):
    write_case(tmp_path / "case")
    monkeypatch.setenv("GRAND_CHALLENGE_AUTHORIZATION", "another")
    with pytest.raises(PlatformError) as raised:
        submit(request_for(), told)
    assert "GRAND_CHALLENGE_AUTHORIZATION is rejected (Invalid token.)" in raised.value.message
    assert "another" not in str(raised.value)


def test_an_algorithm_that_is_not_there_is_an_error(request_for, told, tmp_path):
    write_case(tmp_path / "case")
    with pytest.raises(
        PlatformError, match="'other' cannot be looked up: it is not there, or this"
    ):
        submit(request_for(algorithm="other"), told)


def test_an_algorithm_without_interfaces_is_an_error(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.interfaces = []
    with pytest.raises(PlatformError, match="takes no inputs yet"):
        submit(request_for(), told)


def test_an_algorithm_that_may_not_be_run_is_an_error(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.may_run = False
    error = only(submit(request_for(), told)).error
    assert isinstance(error, PlatformError)
    assert "may see it, but not run it" in error.message
    assert "ask for access" in error.fix


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            (400, {"non_field_errors": ["You have run out of algorithm credits"]}),
            "was started: You have run out of algorithm credits",
        ),
        ((400, {"inputs": [{}, {"value": ["JSON does not fulfil schema."]}]}), "value: JSON does"),
        ((400, ["too many\nactive jobs"]), "too many active jobs"),
        ((403, {"detail": "You do not have permission"}), "You do not have permission"),
        ((418, {}), "the platform answers 418"),
        ((200, {"unknown": "form"}), "cannot use the platform's answer"),
    ],
)
def test_what_the_platform_says_of_a_job_it_does_not_start_is_passed_on(
    platform, request_for, told, tmp_path, fault, words
):
    write_case(tmp_path / "case")
    platform.faults = lambda request: fault if request == "POST /api/v1/algorithms/jobs/" else None
    outcome = only(submit(request_for(), told))
    assert outcome.job is None
    assert type(outcome.error) is PlatformError
    assert words in outcome.error.message


@pytest.mark.parametrize("fault", [DROP, 500, 503])
def test_a_connection_that_breaks_at_the_start_leaves_a_doubt_that_is_said(
    platform, request_for, told, tmp_path, fault
):
    write_case(tmp_path / "case")
    platform.faults = lambda request: fault if request == "POST /api/v1/algorithms/jobs/" else None
    error = only(submit(request_for(), told)).error
    assert isinstance(error, UnreachableError)
    assert f"see {platform.site}algorithms/petct/jobs/ before trying again" in error.fix


def test_storage_that_refuses_a_part_is_an_error_and_the_upload_is_given_up(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case")
    platform.faults = lambda request: 403 if request.startswith("PUT /bucket/") else None
    error = only(submit(request_for(), told)).error
    assert "storage refused a part of an upload" in error.message
    [upload] = platform.uploads.values()
    assert upload["answer"]["status"] == "Aborted"


def test_an_address_that_is_not_the_platform_s_is_an_error(platform, request_for, told):
    with pytest.raises(UsageError, match="no token is sent in the clear"):
        submit(request_for(url="http://grand-challenge.org/api/v1/"), told)
    with pytest.raises(UsageError, match="--url"):
        submit(request_for(url="https://[::bad/"), told)
    with pytest.raises(PlatformError, match="does not answer as grand-challenge.org") as raised:
        submit(request_for(url=platform.site + "elsewhere/"), told)
    assert "check --url" in raised.value.fix


def test_nobody_there_is_an_error(request_for, told):
    with pytest.raises(UnreachableError, match="ConnectError"):
        submit(request_for(url="https://127.0.0.1:9/api/v1/"), told)


def test_without_gcapi_the_error_says_what_to_install(request_for, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcapi", None)
    with pytest.raises(UsageError) as raised:
        submit(request_for(), told)
    assert 'pip install "gcapi>=' in raised.value.fix


@pytest.mark.parametrize("module", ["check_version", "retries"])
def test_an_old_gcapi_is_called_too_old(request_for, told, monkeypatch, module):
    monkeypatch.setitem(sys.modules, f"gcapi.{module}", None)  # as in gcapi 0.12
    with pytest.raises(UsageError, match=r"gcapi [\d.]+ is too old") as raised:
        submit(request_for(), told)
    assert "pip install --upgrade gcapi" in raised.value.fix


def test_a_gcapi_that_lacks_a_name_is_too_old_as_well(request_for, told, monkeypatch):
    monkeypatch.delattr("gcapi.SocketValueSpec")
    with pytest.raises(UsageError, match="is too old"):
        submit(request_for(), told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_dir": None}, "either --input or --job"),
        ({"job": JOB}, "either --input or --job"),
        ({"input_dir": None, "job": "../algorithms"}, "is not a job's identifier"),
        ({"algorithm": "https://grand-challenge.org/algorithms/x/"}, "is not an algorithm's name"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    platform, request_for, told, changes, words
):
    with pytest.raises(UsageError, match=words):
        submit(request_for(**changes), told)
    assert platform.asked == []


def test_outputs_do_not_go_into_the_inputs(request_for, told, tmp_path):
    with pytest.raises(UsageError, match="is inside the input folder"):
        submit(request_for(output_dir=tmp_path / "case" / "out"), told)


# jobs that go wrong


def test_a_failed_job_leads_to_its_page(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Executing", "Failed"]
    outcome = only(submit(request_for(), told))
    assert f"job {outcome.job} failed" in outcome.error.message
    assert f"{platform.site}algorithms/petct/jobs/{outcome.job}/" in outcome.error.fix
    assert tree(tmp_path / "out") == []


def test_the_reason_of_a_failure_is_shown_where_the_platform_gives_one(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Failed"]
    platform.reason = "The container image failed: images/ct: holds 2 images"
    error = only(submit(request_for(), told)).error
    assert error.message.endswith("failed: The container image failed: images/ct: holds 2 images")


def test_a_cancelled_job_is_an_error(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Validating inputs", "Cancelled"]
    error = only(submit(request_for(), told)).error
    assert "was cancelled, by hand or because an input" in error.message


def test_a_job_that_takes_too_long_can_be_fetched_later(platform, request_for, told, tmp_path):
    ct = write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Executing"]
    outcome = only(submit(request_for(timeout_s=600.0), told))
    assert "is not over after 10 min (Executing); it goes on" in outcome.error.message
    assert (
        f"flarekit submit petct --job {outcome.job} --output {tmp_path}/out --url {platform.url}"
        in outcome.error.fix
    )
    platform.statuses = lambda _values: ["Executing", "Succeeded"]
    fetched = only(submit(request_for(input_dir=None, job=outcome.job), told))
    assert fetched.error is None
    assert any(path.read_bytes() == ct for path in fetched.files)
    assert len(platform.jobs) == 1


def test_a_job_of_another_algorithm_or_of_nobody_is_refused(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    job = only(submit(request_for(), told)).job
    platform.algorithm = lambda: {**type(platform).algorithm(platform), "api_url": "https://x/"}
    request = request_for(input_dir=None, job=job, output_dir=tmp_path / "again")
    with pytest.raises(UsageError, match="is not one of algorithm 'petct'"):
        submit(replace(request, job=job), told)
    with pytest.raises(PlatformError, match="No Job matches"):
        submit(replace(request, job=JOB), told)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (DROP, 3),
        (500, 3),
        (502, 3 * 9),
        (429, 3 * 9),
    ],  # gcapi itself tries the last ones nine times
)
def test_a_connection_that_breaks_for_a_while_is_waited_for(
    platform, request_for, told, tmp_path, clock, fault, times
):
    write_case(tmp_path / "case")
    left = iter([fault] * times)
    platform.faults = lambda request: next(left, None) if request.startswith(LOOK) else None
    outcome = only(submit(request_for(), told))
    assert outcome.error is None
    assert sum("trying again" in line for line in told.lines) == 1
    assert clock.pauses_s == [30, 60, 120, 15]


def test_a_connection_that_stays_broken_ends_the_wait_and_says_that_the_job_goes_on(
    platform, request_for, told, tmp_path, clock
):
    write_case(tmp_path / "case")
    platform.faults = lambda request: DROP if request.startswith(LOOK) else None
    outcome = only(submit(request_for(), told))
    assert isinstance(outcome.error, UnreachableError)
    assert f"for 16 min; job {outcome.job} goes on" in outcome.error.message
    assert f"--job {outcome.job}" in outcome.error.fix
    assert clock.pauses_s == [30, 60] + [120] * 7


def test_a_token_that_ends_during_the_wait_says_how_to_go_on(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.faults = lambda request: (
        (401, {"detail": "Token expired."}) if request.startswith(LOOK) else None
    )
    outcome = only(submit(request_for(), told))
    assert "is rejected (Token expired.)" in outcome.error.message
    assert (
        f"fetch the job later with `flarekit submit petct --job {outcome.job}" in outcome.error.fix
    )


def test_an_interrupted_wait_names_the_jobs_that_go_on(
    platform, request_for, told, tmp_path, clock
):
    for name in ("a", "b"):
        write_case(tmp_path / "cases" / name)

    def interrupt(_seconds):
        raise KeyboardInterrupt

    clock.sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(request_for(input_dir=tmp_path / "cases"), told)
    assert len(told.errors) == 2
    for pk, line in zip(platform.jobs, told.errors, strict=True):
        assert f"job {pk} goes on; fetch it later with `flarekit submit petct --job {pk}" in line


# outputs


@pytest.mark.quick(2)
@pytest.mark.parametrize("where", ["GET /api/v1/cases/images/", "GET /media/", "GET /signed/"])
@pytest.mark.parametrize("fault", [403, 404])
def test_an_output_that_cannot_be_had_is_named_and_the_others_are_fetched(
    platform, request_for, told, tmp_path, where, fault
):
    write_case(tmp_path / "case")
    platform.faults = lambda request: fault if request.startswith(where) else None
    outcome = only(submit(request_for(), told))
    assert "output tumor-lesion-segmentation (images/tumor-lesion-segmentation) cannot be" in str(
        outcome.error
    )
    assert f"--job {outcome.job}" in outcome.error.fix
    assert tree(tmp_path / "out") == ["data-centric-model.json"]
    platform.faults = lambda _request: None
    again = only(submit(request_for(input_dir=None, job=outcome.job), told))
    assert again.error is None
    assert len(tree(tmp_path / "out")) == 2


def test_a_download_that_breaks_is_tried_again_without_the_ones_that_are_there(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case", clicks=True)
    left = iter([DROP, DROP])
    platform.faults = lambda request: next(left, None) if request.endswith("lesions.csv") else None
    outcome = only(submit(request_for(), told))
    assert outcome.error is None
    assert len(tree(tmp_path / "out")) == 2
    assert sum(request.startswith("GET /media/images") for request in platform.asked) == 1


def test_a_job_that_shows_no_outputs_is_an_error(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    platform.interfaces = [(platform.interfaces[0][0], [])]
    assert "shows no outputs" in only(submit(request_for(), told)).error.message


def test_an_output_never_leaves_the_output_folder(platform, request_for, told, tmp_path):
    write_case(tmp_path / "case")
    outside = make_socket("flag", "Bool", "Value", "../flag.json")
    platform.interfaces = [(platform.interfaces[0][0], [outside])]
    assert "would be written elsewhere" in only(submit(request_for(), told)).error.message
    assert not (tmp_path / "flag.json").exists()


def test_outputs_that_are_there_already_are_found_before_anything_is_sent(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case")
    assert only(submit(request_for(), told)).error is None
    error = only(submit(request_for(), told)).error
    assert isinstance(error, OutputError)
    assert "images/tumor-lesion-segmentation: is there already" in error.message
    assert len(platform.jobs) == 1


def test_a_folder_never_gets_a_second_image(request_for, told, tmp_path):
    write_case(tmp_path / "case")
    job = only(submit(request_for(), told)).job
    write_image(tmp_path / "again/images/tumor-lesion-segmentation/other.mha")
    request = request_for(input_dir=None, job=job, output_dir=tmp_path / "again")
    error = only(submit(request, told)).error
    assert isinstance(error, OutputError)
    assert "holds another image already (other.mha)" in error.message


def test_an_output_folder_that_cannot_be_made_is_found_before_anything_is_sent(
    platform, request_for, told, tmp_path
):
    write_case(tmp_path / "case")
    (tmp_path / "out").write_text("a file")
    assert isinstance(only(submit(request_for(), told)).error, OutputError)
    assert platform.uploads == {}


# the command


def test_the_command_exits_with_zero_when_all_outputs_are_there(request_for, tmp_path, capfd):
    write_case(tmp_path / "case")
    assert run_submit(request_for(), Console()) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "case: Succeeded" in err
    assert err.splitlines()[-1] == f"1 of 1 cases are in {tmp_path}/out"


def test_the_command_exits_with_one_when_a_case_failed_and_names_it_last(
    platform, request_for, tmp_path, capfd
):
    for name in ("a", "b"):
        write_case(tmp_path / "cases" / name)
    platform.statuses = lambda values: ["Failed" if b"bbbb" in values["ct"] else "Succeeded"]
    assert run_submit(request_for(input_dir=tmp_path / "cases"), Console(quiet=True)) == 1
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in lines] == [
        ["error", " b"],
        ["error", " 1 of 2 cases failed"],
    ]
    assert "b (see above)" in lines[-1]


def test_the_only_case_s_error_is_the_command_s(platform, request_for, tmp_path, capfd):
    write_case(tmp_path / "case")
    platform.statuses = lambda _values: ["Failed"]
    with pytest.raises(PlatformError, match="failed"):
        run_submit(request_for(), Console(quiet=True))
    assert capfd.readouterr().err == ""


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("where", "fault", "after"),
    [
        ("nothing", None, 0),
        ("PUT /bucket/", 503, 0),
        ("GET /signed/", 503, 0),
        ("GET", 401, 4),
        ("POST", 400, 0),
    ],
)
def test_neither_the_token_nor_a_signature_is_ever_said(
    platform, request_for, tmp_path, capfd, where, fault, after
):
    write_case(tmp_path / "case")
    left = iter([None] * after)
    platform.faults = lambda request: next(left, fault) if request.startswith(where) else None
    try:
        run_submit(request_for(pace=replace(PACE, patience_s=0.0)), Console(verbose=True))
    except PlatformError as error:
        text = str(error)
    else:
        text = ""
        assert where == "nothing"
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + text
    assert SIGNATURE not in out + err + text
    assert where == "nothing" or "DEBUG: gcapi: " in err
