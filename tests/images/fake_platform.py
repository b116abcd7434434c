"""grand-challenge.org in a thread: as much of its API, storage and downloads as gcapi 0.16 uses.

Answers have the fields of gcapi's models, requests are refused as the platform's serializers do
(https://github.com/comic/grand-challenge.org, `algorithms/serializers.py`). Its algorithm returns
what was sent: the mask is the content of the first image, and so on.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

import gcapi.models
import trustme

TOKEN = "0123456789abcdef0123456789abcdef-the-token"
SIGNATURE = "X-Amz-Signature=5ec2e7"
DROP = object()  # a reply: the connection is closed instead


def make_socket(slug, kind="Image", super_kind="Image", path=None):
    """Return a socket as the platform states it."""
    return {
        "title": slug.replace("-", " ").title(),
        "description": "",
        "slug": slug,
        "kind": kind,
        "pk": int(hashlib.sha1(slug.encode()).hexdigest()[:6], 16),
        "default_value": None,
        "super_kind": super_kind,
        "relative_path": path or (f"images/{slug}" if super_kind == "Image" else f"{slug}.json"),
        "overlay_segments": [],
        "look_up_table": None,
    }


CT, PET = make_socket("ct"), make_socket("pet")
CLICKS = make_socket("lesion-clicks", "Multiple points", "File")
AGE = make_socket("age", "Integer", "Value")
MASK = make_socket("tumor-lesion-segmentation", "Segmentation")
FLAG = make_socket("data-centric-model", "Bool", "Value")
TABLE = make_socket("lesions", "CSV file", "File", "tables/lesions.csv")
POINTS = make_socket("found", "Multiple points", "File")


@dataclass
class Server:
    """What the platform has, and what it was asked.

    Attributes:
        interfaces: inputs and outputs of the algorithm `petct`.
        statuses: of the inputs of a job: what it shows, one per look; the last one stays.
        reason: a job's error message, which the platform of today does not give.
        faults: of a request "METHOD path": a status, (status, content) or DROP, or None.
        asked: every request, as "METHOD path".
        most_active: jobs that were active at the same time.
    """

    url: str
    storage: str
    interfaces: list = field(
        default_factory=lambda: [([CT, PET], [MASK, FLAG]), ([CT, PET, CLICKS], [MASK, TABLE])]
    )
    statuses: Callable = lambda _values: ["Queued", "Succeeded"]
    reason: str | None = None
    may_run: bool = True
    latest: str = field(default_factory=lambda: version("gcapi"))
    oldest: str = "0.13.0"
    faults: Callable = lambda _request: None
    asked: list = field(default_factory=list)
    uploads: dict = field(default_factory=dict)
    jobs: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    images: dict = field(default_factory=dict)
    most_active: int = 0

    @property
    def site(self):
        return self.url.removesuffix("api/v1/")

    @property
    def sockets(self):
        return {each["slug"]: each for i, o in self.interfaces for each in (*i, *o)}

    def algorithm(self):
        return {
            "api_url": f"{self.url}algorithms/8d0f/",
            "url": f"{self.site}algorithms/petct/",
            "description": "",
            "pk": "8d0f",
            "title": "PET/CT",
            "logo": "",
            "slug": "petct",
            "average_duration": 61.5,
            "interfaces": [{"inputs": i, "outputs": o} for i, o in self.interfaces],
        }

    # what the API answers: (status, content)

    def list_algorithms(self, query):
        return 200, paginated([self.algorithm()] if query["slug"] == ["petct"] else [])

    def list_sockets(self, query):
        socket = self.sockets.get(query["slug"][0])
        return 200, paginated([socket] if socket else [])

    def create_upload(self, body):
        upload = {
            "pk": str(uuid.uuid4()),
            "created": "2026-11-21T10:00:00+01:00",
            "filename": body["filename"],
            "key": f"uploads/{len(self.uploads)}",
            "s3_upload_id": uuid.uuid4().hex,
            "status": "Initialized",
        }
        upload["api_url"] = f"{self.url}uploads/{upload['pk']}/"
        self.uploads[upload["pk"]] = {"answer": upload, "parts": {}, "content": None}
        return 201, upload

    def sign_parts(self, pk, body):
        key = self.uploads[pk]["answer"]["key"]
        signed = {
            str(n): f"{self.storage}bucket/{key}?partNumber={n}&{SIGNATURE}"
            for n in body["part_numbers"]
        }
        return 200, {**self.uploads[pk]["answer"], "presigned_urls": signed}

    def put_part(self, key, number, content):
        upload = next(u for u in self.uploads.values() if u["answer"]["key"] == key)
        upload["parts"][number] = content
        return f'"{hashlib.md5(content).hexdigest()}"'

    def complete_upload(self, pk, body):
        upload = self.uploads[pk]
        assert [part["PartNumber"] for part in body["parts"]] == sorted(upload["parts"])
        for part in body["parts"]:
            content = upload["parts"][part["PartNumber"]]
            assert part["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
        upload["content"] = b"".join(content for _, content in sorted(upload["parts"].items()))
        upload["answer"]["status"] = "Completed"
        return 200, upload["answer"]

    def abort_upload(self, pk):
        self.uploads[pk]["answer"]["status"] = "Aborted"
        return 200, self.uploads[pk]["answer"]

    def create_job(self, body):
        assert set(body) == {f.name for f in fields(gcapi.models.JobPostRequest)}
        if not self.may_run or body["algorithm"] != self.algorithm()["api_url"]:
            return 400, {"algorithm": ["Invalid hyperlink - Object does not exist."]}
        values = {}
        for each in body["inputs"]:
            form = gcapi.models.ComponentInterfaceValuePostRequest
            assert set(each) == {f.name for f in fields(form)}
            given = {key for key, value in each.items() if value is not None} - {"interface"}
            super_kind = self.sockets[each["interface"]]["super_kind"]
            wanted = {"Image": "user_uploads", "File": "user_upload", "Value": "value"}[super_kind]
            if given != {wanted}:
                return 400, {"inputs": [{}, {"non_field_errors": [f"{wanted} is required"]}]}
            values[each["interface"]] = self.value_of(each[wanted], super_kind)
        outputs = [o for i, o in self.interfaces if {s["slug"] for s in i} == set(values)]
        if not outputs:
            return 400, {"non_field_errors": ["The set of inputs provided does not match any"]}
        pk = str(uuid.uuid4())
        self.jobs[pk] = {"values": values, "outputs": outputs[0], "looks": 0}
        self.jobs[pk]["algorithm"] = body["algorithm"]
        self.most_active = max(self.most_active, len(self.active()))
        inputs = [
            {"interface": s, "value": None, "file": None, "image": None, "pk": 5, "image_name": ""}
            for s in values
        ]
        return 201, {"pk": pk, "inputs": inputs, "status": "Validating inputs"}

    def value_of(self, given, super_kind):
        if super_kind == "Value":
            return given
        urls = given if super_kind == "Image" else [given]
        uploads = {u["answer"]["api_url"]: u for u in self.uploads.values()}
        return b"".join(uploads[url]["content"] for url in urls)

    def active(self):
        return [pk for pk in self.jobs if self.status(pk) not in ("Succeeded", "Failed")]

    def status(self, pk):
        job = self.jobs[pk]
        statuses = self.statuses(job["values"])
        return statuses[min(max(job["looks"], 1), len(statuses)) - 1]

    def show_job(self, pk):
        if pk not in self.jobs:
            return 404, {"detail": "No Job matches the given query."}
        job = self.jobs[pk]
        job["looks"] += 1
        done = self.status(pk) == "Succeeded"
        answer = {
            "pk": pk,
            "url": f"{self.site}algorithms/petct/jobs/{pk}/",
            "api_url": f"{self.url}algorithms/jobs/{pk}/",
            "algorithm_image": f"{self.url}algorithms/images/77/",
            "inputs": [],
            "outputs": [self.made(s, job["values"]) for s in job["outputs"]] if done else [],
            "status": self.status(pk),
            "hanging_protocol": None,
            "optional_hanging_protocols": [],
            "view_content": {},
            "exec_duration": "P0DT00H00M07.5S" if done else None,
            "invoke_duration": None,
            "algorithm": job["algorithm"],
        }
        assert set(answer) == {f.name for f in fields(gcapi.models.HyperlinkedJob)}
        return 200, answer if self.reason is None else {**answer, "error_message": self.reason}

    def made(self, socket, values):
        answer = {"socket": socket, "interface": socket, "value": None, "file": None}
        answer |= {"image": None, "pk": socket["pk"]}
        if socket["super_kind"] == "Value":
            return {**answer, "value": True}
        if socket["super_kind"] == "File":
            path = f"media/components/{socket['pk']}/{socket['relative_path']}"
            self.files[path] = values.get("lesion-clicks") if path.endswith("json") else b"id,ml\n"
            return {**answer, "file": f"{self.site}{path}"}
        pk = str(uuid.uuid5(uuid.NAMESPACE_OID, socket["slug"]))
        path = f"media/images/aa/{pk}/{pk}.mha"
        self.images[pk], self.files[path] = f"{self.site}{path}", values["ct"]
        return {**answer, "image": f"{self.url}cases/images/{pk}/"}

    def show_image(self, pk):
        file = {"pk": "f1", "image": f"{self.url}cases/images/{pk}/", "file": self.images[pk]}
        answer = dict.fromkeys(f.name for f in fields(gcapi.models.HyperlinkedImage))
        answer |= {"pk": pk, "name": "mask.mha", "files": [{**file, "image_type": "MHD"}]}
        answer |= {"color_space": "GRAY", "stereoscopic_choice": "", "field_of_view": ""}
        answer |= {"shape_without_color": [1, 1, 1], "shape": [1, 1, 1]}
        return 200, {**answer, "api_url": f"{self.url}cases/images/{pk}/"}


def paginated(results):
    return {"count": len(results), "next": None, "previous": None, "results": results}


ROUTES = [
    (r"GET /api/v1/algorithms/", lambda s, r: s.list_algorithms(r.query)),
    (r"GET /api/v1/components/interfaces/", lambda s, r: s.list_sockets(r.query)),
    (r"POST /api/v1/uploads/", lambda s, r: s.create_upload(r.body)),
    (
        r"PATCH /api/v1/uploads/([^/]+)/\w+/generate-presigned-urls/",
        lambda s, r, pk: s.sign_parts(pk, r.body),
    ),
    (
        r"PATCH /api/v1/uploads/([^/]+)/\w+/complete-multipart-upload/",
        lambda s, r, pk: s.complete_upload(pk, r.body),
    ),
    (
        r"PATCH /api/v1/uploads/([^/]+)/\w+/abort-multipart-upload/",
        lambda s, _, pk: s.abort_upload(pk),
    ),
    (r"POST /api/v1/algorithms/jobs/", lambda s, r: s.create_job(r.body)),
    (r"GET /api/v1/algorithms/jobs/([^/]+)/", lambda s, _, pk: s.show_job(pk)),
    (r"GET /api/v1/cases/images/([^/]+)/", lambda s, _, pk: s.show_image(pk)),
]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    fake: Server
    protocol_version = "HTTP/1.1"  # a connection is kept: each handshake costs more than an answer
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet

    def log_message(self, *_arguments):
        """Stay silent."""

    def handle_any(self):
        if hasattr(socket, "TCP_QUICKACK"):  # clients hold a body back until the headers are had
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {url.path}"
        self.fake.asked.append(request)
        fault = self.fake.faults(request)
        if fault is DROP:
            self.close_connection = True
            return
        if fault is not None:
            status, answer = fault if isinstance(fault, tuple) else (fault, {"detail": "No."})
            self.answer(status, answer)
        elif url.path.startswith("/bucket/"):
            self.store(url.path, content)
        elif url.path.startswith("/signed/"):
            self.download(url.path)
        elif url.path == "/api/v1/gcapi/":
            versions = {"latest_version": self.fake.latest}
            self.answer(200, {**versions, "lowest_supported_version": self.fake.oldest})
        elif not url.path.startswith(("/api/v1/", "/media/")):
            self.answer(404, {"detail": "Not found."})
        elif self.headers.get("Authorization") != f"BEARER {TOKEN}":
            self.answer(401, {"detail": "Invalid token."})
        elif url.path.startswith("/media/"):  # a link that is signed, to another server
            self.answer(302, {}, Location=f"{self.fake.storage}signed{url.path}?{SIGNATURE}")
        else:
            self.body = json.loads(content) if content else None
            self.answer(*self.routed(request))

    def routed(self, request):
        for pattern, reply in ROUTES:
            found = re.fullmatch(pattern, request)
            if found:
                return reply(self.fake, self, *found.groups())
        return 404, {"detail": "Not found."}

    def store(self, path, content):
        assert "Authorization" not in self.headers
        number = int(self.query["partNumber"][0])
        tag = self.fake.put_part(path.removeprefix("/bucket/"), number, content)
        self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def download(self, path):
        assert "Authorization" not in self.headers
        content = self.fake.files[path.removeprefix("/signed/")]
        self.send_response(200)
        self.send_header("Content-Type", "binary/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer(self, status, content, **headers):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_PUT = handle_any


def make_certificate(folder):
    """Return a server's TLS settings, and write what clients trust to `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def serve(context):
    """Start a platform; return what it has, and the server to shut down."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), None)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    port = http.server_address[1]
    fake = Server(url=f"https://127.0.0.1:{port}/api/v1/", storage=f"https://localhost:{port}/")
    http.RequestHandlerClass = type("Handler", (Handler,), {"fake": fake})
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    return fake, http
