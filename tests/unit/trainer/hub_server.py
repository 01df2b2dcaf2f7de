"""A small server that speaks the protocol of the Hugging Face Hub: enough for its own clients."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(?:datasets|models)/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
FILE = re.compile(r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
TOKEN = "hf_right"  # noqa: S105 - of a server that lives for one test


@dataclass
class Repository:
    """Its files at each revision: `main` is the newest."""

    revisions: dict[str, dict[str, bytes]]
    private: bool = False
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """The name of a commit by that of a branch; a commit's own name is one, too."""
        for name in self.revisions:
            if revision in (name, sha(name)):
                return name
        return None


def sha(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()  # noqa: S324 - as git names commits


@dataclass
class HubServer:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    break_after: dict[str, int] = field(default_factory=dict)
    """Of a file's first answer, how many bytes come before the connection breaks."""
    fetched: list[tuple[str, str | None]] = field(default_factory=list)
    """Files that were asked for with GET, and with which Range."""


class _Handler(http.server.BaseHTTPRequestHandler):
    state: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = FILE.fullmatch(path) or API.fullmatch(path)
        repository = self.state.repositories.get(found["repo"]) if found else None
        if found is None or not self._may_see(repository):
            return
        assert repository is not None
        name = repository.commit(found["revision"] or "main")
        if name is None:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif found.re is FILE:
            self._file(repository.revisions[name], sha(name), found["path"])
        else:
            self._describe(found["repo"], found["what"], repository.revisions[name], sha(name))

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _may_see(self, repository: Repository | None) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            self._answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and given is None):
            self._answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repository.gated:
            self._answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        else:
            return True
        return False

    def _describe(self, repo: str, what: str | None, files: dict[str, bytes], commit: str) -> None:
        if what == "tree":
            tree = [{"type": "file", "path": path, "oid": sha(path), "size": len(files[path])} for path in files]
            self._answer(200, {}, json.dumps(tree).encode())
            return
        siblings = [{"rfilename": path} for path in files]
        self._answer(200, {}, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode())

    def _file(self, files: dict[str, bytes], commit: str, path: str) -> None:
        if self.command == "GET":
            self.state.fetched.append((path, self.headers.get("Range")))
        if path not in files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[path]
        start = int(re.findall(r"\d+", self.headers.get("Range") or "0")[0])
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, headers, content[start:], self.state.break_after)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes = b"", breaks: dict[str, int] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        name = self.path.rsplit("/", 1)[-1]
        if breaks and name in breaks:
            body = body[: breaks.pop(name)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving() -> Iterator[HubServer]:
    state = HubServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield state
        listening.shutdown()
