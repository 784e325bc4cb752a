"""A double of a cluster's API over HTTP: objects, pages, watches, and the faults that tests ask for.

No controller works behind it: what a Job controller, scheduler or kubelet would do, a test does by
:meth:`FakeApi.change`. The same commands run against a real API server in tests/end_to_end/test_commands.py.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Document = dict[str, Any]
Key = tuple[str, str]

NAMESPACE = "team"


@dataclass
class Fault:
    """What the next requests that it fits get instead of an answer.

    Attributes:
        status: 0 cuts the connection.
    """

    status: int
    times: int = 1
    method: str = ""
    part: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "made to fail"


class FakeApi:
    """The server. ``requests`` are (method, path with query) in their order."""

    def __init__(self) -> None:
        self.objects: dict[Key, Document] = {}
        self.log: list[tuple[int, str, str, Document]] = []
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.version = 100
        self.oldest = 0
        self.cut = threading.Event()
        self.changed = threading.Condition()
        self.lingering = False
        self.bookmarks = False
        self.on_create: Callable[[Document], None] = lambda thing: None
        self.put("namespaces", {"metadata": {"name": NAMESPACE}})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self, file: Path) -> Path:
        """Write a kubeconfig with the contexts ``fake`` (current) and ``dead`` (nobody listens)."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [
                {"name": "fake", "cluster": {"server": self.url}},
                {"name": "dead", "cluster": {"server": "http://127.0.0.1:1"}},
            ],
            "users": [{"name": "tester", "user": {"token": "a-token-of-tests"}}],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": "tester", "namespace": NAMESPACE}}
                for name in ("fake", "dead")
            ],
        }
        file.write_text(json.dumps(document))
        return file

    def put(self, kind: str, thing: Document) -> Document:
        """Create an object."""
        with self.changed:
            metadata = thing["metadata"]
            metadata.setdefault("uid", uuid.uuid4().hex)
            metadata.setdefault("namespace", NAMESPACE)
            metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{self.version % 60:02}Z")
            return self._record("ADDED", kind, thing)

    def change(self, kind: str, name: str, **parts: Any) -> Document:
        """Lay ``parts`` over an object's top level."""
        with self.changed:
            thing = copy.deepcopy(self.objects[kind, name])
            for part, value in parts.items():
                thing[part] = {**thing.get(part, {}), **value}
            return self._record("MODIFIED", kind, thing)

    def remove(self, kind: str, name: str) -> None:
        with self.changed:
            self._record("DELETED", kind, self.objects.pop((kind, name)))

    def of(self, kind: str) -> list[Document]:
        with self.changed:
            return [thing for (each, _), thing in sorted(self.objects.items()) if each == kind]

    def forget(self) -> None:
        """Compact: versions until now are no longer known, and open watches end."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
        self.hang_up()

    def hang_up(self) -> None:
        """Cut every open watch."""
        with self.changed:
            self.cut.set()
            self.cut = threading.Event()
            self.changed.notify_all()

    def count(self, method: str, part: str = "") -> int:
        return sum(each == method and part in path for each, path in self.requests)

    def close(self) -> None:
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()

    def _record(self, event: str, kind: str, thing: Document) -> Document:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        if event != "DELETED":
            self.objects[kind, thing["metadata"]["name"]] = thing
        self.log.append((self.version, event, kind, copy.deepcopy(thing)))
        self.changed.notify_all()
        return thing


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    api = FakeApi()
    try:
        yield api
    finally:
        api.close()


def fits(thing: Document, query: Mapping[str, str]) -> bool:
    """Whether an object has the labels and fields that a list asks for."""
    labels = thing["metadata"].get("labels", {})
    for each in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = each.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    field_name, _, wanted = query.get("fieldSelector", "").partition("=")
    return field_name != "involvedObject.name" or thing["involvedObject"]["name"] == wanted


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            api.requests.append((method, self.path))
            if self._fault(method):
                return
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            names = parts.path.strip("/").split("/")
            if names == ["version"]:
                self._say(200, {"gitVersion": "v1.33.0"})
                return
            if "namespaces" in names[:-2]:
                if names[names.index("namespaces") + 1] != NAMESPACE and method == "POST":
                    self._refuse(404, "no such namespace", kind="namespaces")
                    return
                names = names[names.index("namespaces") + 2 :]
            else:
                names = names[2:]
            getattr(self, f"_{method.lower()}")(names, query, body)

        def _fault(self, method: str) -> bool:
            for fault in api.faults:
                if fault.times and (not fault.method or fault.method == method) and fault.part in self.path:
                    fault.times -= 1
                    if fault.status == 0:
                        self.close_connection = True
                        self.connection.close()
                    else:
                        self._refuse(fault.status, fault.message, headers=fault.headers)
                    return True
            return False

        def _get(self, names: list[str], query: dict[str, str], body: Document) -> None:
            if len(names) == 2:
                thing = api.objects.get((names[0], names[1]))
                if thing is None:
                    self._refuse(404, f"{names[0]} {names[1]!r} not found", kind=names[0])
                else:
                    self._say(200, thing)
            elif len(names) == 3:
                self._text(api.objects[names[0], names[1]].get("log", ""))
            elif "watch" in query:
                # A watcher that went away is no error of the server.
                with suppress(ConnectionError):
                    self._watch(names[0], query)
            else:
                self._list(names[0], query)

        def _list(self, kind: str, query: dict[str, str]) -> None:
            found = [thing for thing in api.of(kind) if fits(thing, query)]
            start, limit = int(query.get("continue", 0)), int(query.get("limit", 0)) or len(found)
            metadata = {"resourceVersion": str(api.version)}
            if start + limit < len(found):
                metadata["continue"] = str(start + limit)
            self._say(200, {"metadata": metadata, "items": found[start : start + limit]})

        def _post(self, names: list[str], query: dict[str, str], body: Document) -> None:
            with api.changed:
                if (names[0], body["metadata"]["name"]) in api.objects:
                    self._refuse(409, "already exists")
                    return
                made = api.put(names[0], body)
            api.on_create(made)
            self._say(201, made)

        def _delete(self, names: list[str], query: dict[str, str], body: Document) -> None:
            thing = api.objects.get((names[0], names[1]))
            wanted = body.get("preconditions", {}).get("uid")
            if thing is None:
                self._refuse(404, "not found")
            elif wanted and wanted != thing["metadata"]["uid"]:
                self._refuse(409, "the UID in the precondition does not match")
            elif api.lingering:
                api.change(*names, metadata={"deletionTimestamp": "2026-01-01T00:01:00Z"})
                self._say(200, thing)
            else:
                api.remove(*names)
                self._say(200, thing)

        def _watch(self, kind: str, query: dict[str, str]) -> None:
            at, cut = int(query["resourceVersion"]), api.cut
            if at < api.oldest:
                self._start()
                self._chunk({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
                self._chunk(None)
                return
            self._start()
            while not cut.is_set():
                with api.changed:
                    news = [entry for entry in api.log if entry[0] > at and entry[2] == kind]
                    if not news:
                        if api.bookmarks and api.version > at:
                            at = api.version
                            self._chunk({"type": "BOOKMARK", "object": _bookmark(at)})
                        api.changed.wait(1.0)
                        continue
                for version, event, _, thing in news:
                    at = version
                    if fits(thing, query):
                        self._chunk({"type": event, "object": thing})
            self.close_connection = True
            self.connection.close()

        def _start(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _chunk(self, event: Document | None) -> None:
            data = b"" if event is None else json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def _refuse(
            self, status: int, message: str, kind: str = "", headers: Mapping[str, str] | None = None
        ) -> None:
            self._say(status, {"kind": "Status", "message": message, "details": {"kind": kind}}, headers)

        def _text(self, text: str) -> None:
            self._send(200, text.encode(), {})

        def _say(self, status: int, document: Document, headers: Mapping[str, str] | None = None) -> None:
            self._send(status, json.dumps(document).encode(), headers or {})

        def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _bookmark(version: int) -> Document:
    return {"metadata": {"resourceVersion": str(version)}}


def job(
    name: str, cells: tuple[str, ...] = ("c1",), *, digest: str = "d1", sweep: str = "study", gpu: int = 1
) -> Document:
    """A Job as the chart renders it, as far as the runner reads it."""
    labels = {
        "app.kubernetes.io/name": "defectbench",
        "defectbench.dev/sweep": sweep,
        "defectbench.dev/model": "glass",
        "defectbench.dev/category": "bottle",
    }
    limits = {"memory": "8Gi", **({"nvidia.com/gpu": str(gpu)} if gpu else {})}
    container = {
        "name": "worker",
        "image": "registry.test/defectbench:1",
        "args": ["job", "--store", "s3://b", *(part for key in cells for part in ("--cell", key))],
        "resources": {"requests": {"cpu": "2"}, "limits": limits},
        "env": [
            {
                "name": "AWS_ACCESS_KEY_ID",
                "valueFrom": {"secretKeyRef": {"name": "defectbench-s3", "key": "AWS_ACCESS_KEY_ID"}},
            }
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {"defectbench.dev/digest": digest}},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    }


def pod(owner: Document, number: int = 1, **status: Any) -> Document:
    """A pod of a Job that is in the cluster."""
    name = owner["metadata"]["name"]
    labels = {**owner["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
    return {
        "metadata": {
            "name": f"{name}-{number}",
            "labels": labels,
            "ownerReferences": [{"uid": owner["metadata"]["uid"], "kind": "Job"}],
            "creationTimestamp": f"2026-01-01T01:00:{number:02}Z",
        },
        "spec": {"nodeName": "node-1", **owner["spec"]["template"]["spec"]},
        "status": {"phase": "Running", **status},
    }
