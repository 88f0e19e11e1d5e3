"""A stand-in for the Hugging Face Hub's HTTP API, for tests: repositories in memory, LFS included.

`huggingface_hub` talks to it through HF_ENDPOINT, so nothing of the client is replaced. Binary
files are refused in a commit unless they came through LFS, as the Hub does. Every request is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from tests.listening import Handler, listening

COMMIT = "0" * 40
Break = Literal["before", "after", "error"]
"""Where a request breaks off: before it is done, after it is done but unanswered, or with a 503."""


@dataclass
class Repository:
    """The files of one repository with its history, and for a Space what is set on it."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    head: str = COMMIT
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each earlier commit that can still be read."""
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    restarts: int = 0
    polls: int = 0
    squashed: int = 0


@dataclass
class Hub:
    """All repositories by `type/owner/name`, and the requests as (method, path, body)."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    down: bool = False
    stage: str = "RUNNING"
    refuse: dict[str, int] = field(default_factory=dict)
    commit: str = COMMIT
    pause: float = 0.0
    """Seconds before each file of a model."""
    breaks: Callable[[str, str], Break | None] = lambda method, path: None
    """Says of a request whether it breaks off."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    before_commit: Callable[[], None] = lambda: None
    """Is called when a commit to a data set has arrived and is not yet done."""

    def environment(self) -> dict[str, str]:
        """What sends a process's `huggingface_hub` here."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def paths(self, method: str) -> list[str]:
        return [path for asked, path, _ in self.requests if asked == method]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        status, headers, content = self._route(method, path, body)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return status, headers, raw

    def _route(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        for part, status in self.refuse.items():
            if part in path:
                return status, {}, {"error": "refused"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {}, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/lfs/(\w+)", path):
            self.objects[match[1]] = body
            return 200, {}, {}
        if match := re.fullmatch(r"/(?:(space|dataset)s/)?(.+)\.git/info/lfs/objects/(\w+)", path):
            return self._lfs(json.loads(body), match[3])
        if match := re.fullmatch(r"/(space|dataset)s/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(f"{match[1]}/{match[2]}", match[4], revision=match[3])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            time.sleep(self.pause)
            return self._file(f"model/{match[1]}", match[2], self.commit)
        if match := re.fullmatch(r"/api/(space|dataset|model)s/([^/]+/[^/]+)(?:/(.*))?", path):
            name = f"{match[1]}/{match[2]}"
            if name not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, {"error": "not found"}
            return self._repository(self.repositories[name], method, match[3] or "", body, name)
        return 404, {}, {"error": f"the stand-in has no {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        name = f"{asked['type']}/{asked['organization']}/{asked['name']}"
        url = f"{self.url}/{asked['type']}s/{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return 409, {}, {"error": "You already created this repo", "url": url}
        made = self.repositories[name] = Repository({".gitattributes": b"*.safetensors lfs\n"})
        made.private = asked.get("visibility") == "private"
        made.hardware = asked.get("hardware")
        made.variables = {v["key"]: v["value"] for v in asked.get("variables", ())}
        made.secrets = {v["key"]: v["value"] for v in asked.get("secrets", ())}
        return 200, {}, {"url": url}

    def _lfs(self, asked: dict[str, Any], what: str) -> tuple[int, dict[str, str], Any]:
        if what == "verify":
            return 200, {}, {}
        objects: list[dict[str, Any]] = []
        for wanted in asked["objects"]:
            found: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.objects:
                found["actions"] = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
            objects.append(found)
        return 200, {}, {"transfer": "basic", "objects": objects}

    def _file(
        self, name: str, path: str, commit: str | None = None, revision: str = "main"
    ) -> tuple[int, dict[str, str], Any]:
        held = self.repositories.get(name)
        newest = held is None or revision in ("main", held.head)
        files = (held.files if newest else held.history.get(revision, {})) if held else {}
        if path not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, {"error": "not found"}
        content = files[path]
        digest = hashlib.sha1(content).hexdigest()
        if commit is not None:
            return 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit}, content
        return 200, {"ETag": f'"{digest}"', "X-Repo-Commit": digest}, content

    def _repository(
        self, held: Repository, method: str, rest: str, body: bytes, name: str
    ) -> tuple[int, dict[str, str], Any]:
        if rest.startswith("preupload/"):
            return 200, {}, {"files": [_mode(held, f) for f in json.loads(body)["files"]]}
        if rest.startswith("commit/"):
            return self._commit(held, body.decode(), name)
        if rest.startswith("tree/"):
            return (
                200,
                {},
                [
                    {"type": "file", "path": path, "size": len(c), "oid": _oid(c)}
                    for path, c in held.files.items()
                ],
            )
        if rest.startswith("super-squash/"):
            held.squashed += 1
            held.head = _next(held)
            held.history.clear()
            return 200, {}, {}
        if rest in ("variables", "secrets"):
            kept = held.variables if rest == "variables" else held.secrets
            if method == "POST":
                given = json.loads(body)
                kept[given["key"]] = given["value"]
            shown = {k: {"key": k, "value": v} for k, v in kept.items()}
            return 200, {}, shown
        if rest in ("restart", "runtime", "hardware"):
            return 200, {}, self._runtime(held, rest, body)
        files = [
            {"rfilename": path, "size": len(content), "blobId": _oid(content)}
            for path, content in held.files.items()
        ]
        sha = held.head if name.startswith("dataset/") else self.commit
        return (
            200,
            {},
            {
                "id": name.partition("/")[2],
                "sha": sha,
                "siblings": files,
                "private": held.private,
            },
        )

    def _runtime(self, held: Repository, rest: str, body: bytes) -> dict[str, Any]:
        if rest == "restart":
            held.restarts, held.polls = held.restarts + 1, 0
        elif rest == "hardware":
            held.hardware = json.loads(body)["flavor"]
        else:
            held.polls += 1
        stage = "BUILDING" if held.polls < 2 else self.stage
        return {"stage": stage, "hardware": {"current": None, "requested": held.hardware}}

    def _commit(self, held: Repository, body: str, name: str) -> tuple[int, dict[str, str], Any]:
        kind, _, repo = name.partition("/")
        if kind == "dataset":
            self.before_commit()
        with self.turn:
            return self._committed(held, body, f"{self.url}/{kind}s/{repo}/commit/")

    def _committed(self, held: Repository, body: str, url: str) -> tuple[int, dict[str, str], Any]:
        before = dict(held.files)
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header" and value.get("parentCommit", held.head) != held.head:
                said = "A commit has happened since. Please refresh and try again."
                return 412, {}, {"error": said}
            if operation["key"] == "file":
                content = base64.b64decode(value["content"])
                if _binary(content):
                    return 400, {}, {"error": f"{value['path']} is binary: use LFS or Xet"}
                held.files[value["path"]] = content
            elif operation["key"] == "lfsFile":
                held.files[value["path"]] = self.objects[value["oid"]]
            elif operation["key"] != "header":
                held.files.pop(value["path"])
        held.history[held.head] = before
        held.head = _next(held)
        return 200, {}, {"commitUrl": f"{url}{held.head}", "commitOid": held.head}


def _next(held: Repository) -> str:
    """The name of the commit that follows."""
    return hashlib.sha1(held.head.encode()).hexdigest()


def _binary(content: bytes) -> bool:
    return b"\0" in content[:512]


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _mode(held: Repository, file: dict[str, Any]) -> dict[str, Any]:
    lfs = _binary(base64.b64decode(file["sample"])) or file["size"] > 10_000_000
    found = held.files.get(file["path"])
    oid = None
    if found is not None:
        oid = hashlib.sha256(found).hexdigest() if lfs else _oid(found)
    mode = "lfs" if lfs else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on a port of the system's choice."""
    hub = Hub()

    class Answers(Handler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self._body()
            path = unquote(urlsplit(self.path).path)
            broken = "before" if hub.down else hub.breaks(self.command, path)
            if broken == "before":
                self._break_off()
                return
            hub.requests.append((self.command, path, body))
            status, headers, content = (
                (503, {}, b"{}") if broken == "error" else hub.answer(self.command, path, body)
            )
            if broken == "after":
                self._break_off()
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _break_off(self) -> None:
            self.close_connection = True
            self.connection.close()

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().strip(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any

    with listening(Answers) as hub.url:
        yield hub
