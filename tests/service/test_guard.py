"""Who gets nothing: each threat of docs/service.md has its test here or in test_uploads.py."""

from __future__ import annotations

import contextlib
import os
import re
import socket

import httpx
import pytest

from flarekit.core.errors import InputError, UsageError
from flarekit.service.settings import read_tokens
from tests.service.serving import nifti_of

PATHS = ("/", "/health", "/openapi.json", "/v1/cases", "/v1/predictors", "/assets/x.js")
TOKEN, OTHER = "a" * 32, "b" * 32


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "10.1.2.3", "a@localhost"],
)
def test_a_foreign_host_gets_nothing(running, host):
    for path in PATHS:
        answer = running.client.get(path, headers={"Host": host})
        assert answer.status_code == 421, path


def test_our_own_names_are_answered(running):
    port = running.url.rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "LOCALHOST"):
        assert running.client.get("/health", headers={"Host": host}).status_code == 200


def test_two_host_headers_get_nothing(running):
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert b"200 OK" not in link.recv(4096)


@pytest.mark.quick(2)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_a_foreign_origin_gets_nothing(running, origin):
    headers = {"Origin": origin}
    for path in PATHS:
        assert running.client.get(path, headers=headers).status_code == 403, path
    posted = running.client.post("/v1/demo", json={}, headers=headers)
    uploaded = running.client.post("/v1/cases", files={"scan": nifti_of()}, headers=headers)
    assert (posted.status_code, uploaded.status_code) == (403, 403)
    assert running.client.get("/v1/cases").json() == []


def test_our_own_origin_is_answered(running):
    assert running.client.get("/v1/cases", headers={"Origin": running.url}).status_code == 200


def test_what_another_website_embeds_gets_nothing_but_a_link_to_the_page_works(running):
    for path in PATHS:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert running.client.get(path, headers=headers).status_code == 403, path
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert running.client.get("/", headers=visit).status_code == 200
    assert running.client.get("/v1/cases", headers=visit).status_code == 403


def test_every_answer_carries_the_policy(running):
    paths = [*PATHS, "/nothing", "/v1/cases/unknown", "/v1/cases/unknown/mask"]
    answers = [running.client.get(path) for path in paths]
    answers.append(running.client.get("/health", headers={"Host": "evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


def test_without_a_token_only_this_machine_is_listened_to(settings):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):  # noqa: S104
        with pytest.raises(UsageError, match="no token is set"):
            settings(host=host)
        assert settings(host=host, tokens=(TOKEN,)).host == host
    for host in ("127.0.0.1", "localhost", "::1"):
        assert settings(host=host).host == host


def test_with_tokens_the_api_needs_one_and_the_page_does_not(serve, settings):
    with serve(settings(tokens=(TOKEN, OTHER))) as running:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": "Bearer \u00e9".encode("latin-1")},
        ):
            answer = running.client.get("/v1/cases", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert running.client.get("/health").status_code == 200
        assert running.client.get("/").status_code == 200
        good = {"Authorization": f"Bearer {OTHER}"}
        assert running.client.get("/v1/cases", headers=good).status_code == 200


def test_a_token_sees_its_own_cases_only(serve, settings):
    with serve(settings(tokens=(TOKEN, OTHER))) as running:
        mine, theirs = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, OTHER))
        files = {"scan": ("a.nii", nifti_of())}
        case = running.client.post("/v1/cases", files=files, headers=mine).json()
        assert len(running.client.get("/v1/cases", headers=mine).json()) == 1
        assert running.client.get("/v1/cases", headers=theirs).json() == []
        for what in ("", "/mask", "/events", "/scan", "/picture", "/run", "/statistics"):
            answer = running.client.get(f"/v1/cases/{case['id']}{what}", headers=theirs)
            assert answer.status_code == 404, what
        assert running.client.delete(f"/v1/cases/{case['id']}", headers=theirs).status_code == 404
        cancelled = running.client.post(f"/v1/cases/{case['id']}/cancel", headers=theirs)
        assert cancelled.status_code == 404


def test_tokens_are_compared_in_constant_time(settings, monkeypatch):
    compared = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return first == second

    monkeypatch.setattr("flarekit.service.settings.hmac.compare_digest", compare)
    found = settings(tokens=(TOKEN, OTHER))
    for given in (f"Bearer {TOKEN}", f"Bearer {OTHER}", "Bearer x", None):
        found.owner_of(given)
    assert compared == [(32, 32)] * 8  # every token each time, by digests of one length


def test_token_files_hold_long_tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# somebody\n{TOKEN}\n\n{OTHER}\n")
    assert read_tokens(path) == (TOKEN, OTHER)
    for content, said in (("# none\n", "holds no token"), ("short\n", "fewer than 16")):
        path.write_text(content)
        with pytest.raises(InputError, match=said):
            read_tokens(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "missing")


def test_a_token_file_that_others_can_read_is_told_and_one_of_one_s_own_is_not(tmp_path, caplog):
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    assert read_tokens(path) == (TOKEN,)
    assert not caplog.text
    path.chmod(0o644)
    assert read_tokens(path) == (TOKEN,)
    assert f"{path}: every user of this machine can read the tokens in it" in caplog.text


@pytest.mark.parametrize("odd", ["token with spaces in it", "tökentökentökentöken"])
def test_a_token_that_no_request_can_carry_is_refused(tmp_path, odd):
    (tmp_path / "tokens").write_text(f"{TOKEN}\n{odd}\n", encoding="utf-8")
    with pytest.raises(InputError, match="tokens: holds a token with a character that no request"):
        read_tokens(tmp_path / "tokens")


def test_a_token_file_that_is_none_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, said in ((tmp_path / "pipe", "is a pipe"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=f"{place}: {said}"):
            read_tokens(place)
    (tmp_path / "latin").write_bytes(b"\xfc" * 40)
    with pytest.raises(InputError, match="latin: is not text in UTF-8"):
        read_tokens(tmp_path / "latin")


def test_no_answer_holds_a_traceback_and_no_log_what_it_says(running, monkeypatch, caplog):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(running.service.store, "all", broken)
    answer = running.client.get("/v1/cases")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert not re.search(r"Traceback|secret|\.py", answer.text)
    monkeypatch.undo()
    assert running.client.get("/v1/cases").status_code == 200
    assert "RuntimeError within the service" in caplog.text
    assert "secret" not in caplog.text.replace('"secret detail"', "")  # but for the line of code


@pytest.mark.long
def test_a_body_that_is_no_upload_may_be_a_mebibyte(running, monkeypatch):
    for path in ("/v1/demo", "/cases"):
        answer = running.client.post(path, content=b" " * (1 << 20) + b"{}")
        assert answer.status_code == 413
        assert answer.json()["detail"].endswith("and its address takes no uploads")
        assert "/v1/cases" in answer.json()["fix"]
    monkeypatch.setattr("flarekit.service.guard._DRAIN_S", 0.2)
    monkeypatch.setattr("flarekit.service.server._LINGER_S", 0.2)

    def endless():
        while True:
            yield b" " * 65536

    with contextlib.suppress(httpx.TransportError):  # closed while more was being sent
        assert running.client.post("/v1/demo", content=endless()).status_code == 413


def test_the_openapi_description_names_every_endpoint(running):
    described = running.client.get("/openapi.json").json()["paths"]
    for path in ("/health", "/v1/predictors", "/v1/cases", "/v1/cases/{case_id}/clicks"):
        assert path in described
    assert "multipart/form-data" in described["/v1/cases"]["post"]["requestBody"]["content"]
