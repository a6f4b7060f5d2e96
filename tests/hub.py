"""A hub on loopback: it speaks those endpoints of the Hugging Face hub that pushing and pulling a data set use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Hub:
    """Repositories by name: each a list of commits, a commit its files by path."""

    url: str = ""
    repos: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()  # parts of paths that are answered by 500
    lfs_from: int = 1000  # bytes from which a file goes by LFS

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        commits = self.repos[repo]
        return (
            commits[-1] if revision == "main" else commits[[commit_id(n) for n in range(len(commits))].index(revision)]
        )


def commit_id(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()  # noqa: S324 - git's own


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, what: str) -> None:
        self.answer({"error": f"{what} not found"}, 404, {"X-Error-Code": what})

    def handle_any(self) -> None:  # noqa: PLR0911 - one for each endpoint
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        content = self.body()
        if any(part in path for part in self.hub.broken):
            return self.answer({"error": "out of order"}, 500)
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            there = name in self.hub.repos
            self.hub.repos.setdefault(name, [{".gitattributes": b"*.npy filter=lfs\n"}])
            return self.answer({"url": f"{self.hub.url}/datasets/{name}"}, 409 if there else 200)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        parts = path.strip("/").split("/")
        if path.startswith("/objects/"):
            self.hub.objects[parts[1]] = content
            return self.answer({})
        if parts[0] == "api" and parts[1] == "datasets":
            return self.api("/".join(parts[2:4]), parts[4:], content)
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if parts[0] == "datasets" and parts[3] == "resolve":
            return self.resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        return self.missing("EntryNotFound")

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

    def api(self, repo: str, rest: list[str], content: bytes) -> None:
        if repo not in self.hub.repos:
            return self.missing("RepoNotFound")
        commits = self.hub.repos[repo]
        what = rest[0] if rest else "revision"
        if what == "preupload":
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["size"] >= self.hub.lfs_from else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(content)["files"]
            ]
            return self.answer({"files": modes})
        if what == "commit":
            return self.commit(repo, content)
        revision = rest[1] if len(rest) > 1 else "main"
        known = {"main": len(commits) - 1} | {commit_id(n): n for n in range(len(commits))}
        if revision not in known:
            return self.missing("RevisionNotFound")
        files = commits[known[revision]]
        if what == "tree":
            return self.answer([entry(name, data, self.hub.lfs_from) for name, data in sorted(files.items())])
        siblings = [{"rfilename": name} for name in sorted(files)]
        return self.answer({"id": repo, "sha": commit_id(known[revision]), "siblings": siblings, "private": True})

    def commit(self, repo: str, content: bytes) -> None:
        files = dict(self.hub.files(repo))
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        self.hub.repos[repo].append(files)
        oid = commit_id(len(self.hub.repos[repo]) - 1)
        self.answer({"commitUrl": f"{self.hub.url}/datasets/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        files = self.hub.files(repo, revision)
        if name not in files:
            self.missing("EntryNotFound")
            return
        data = files[name]
        self.answer(data, headers={"X-Repo-Commit": revision, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})


def entry(name: str, data: bytes, lfs_from: int) -> dict[str, Any]:
    """A file in a tree's listing."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's own
    found = {"type": "file", "path": name, "size": len(data), "oid": oid}
    if len(data) >= lfs_from:
        sha256 = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(data), "pointerSize": 130}
    return found


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
