"""A hub for tests: a server on this machine that speaks the few calls that fetching a model takes, and a filled cache."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = hashlib.sha1(b"first").hexdigest()
NEXT = hashlib.sha1(b"next").hexdigest()


@dataclass
class Hub:
    """Repositories by name, each with its files by path; ``heads``: the commit of main; ``asked``: what was fetched."""

    repositories: dict[str, dict[str, bytes]]
    heads: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def commit(self, repository: str, revision: str) -> str | None:
        if repository not in self.repositories:
            return None
        if revision == "main":
            return self.heads.get(repository, COMMIT)
        return revision if revision in (COMMIT, NEXT) else None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at ``hub.url`` while the block runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        parts = unquote(self.path.split("?")[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _info(self, repository: str, revision: str) -> None:
        commit = self._commit(repository, revision)
        if commit:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.hub.repositories[repository].items()]
            told = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        commit = self._commit(repository, revision)
        if not commit:
            return
        data = self.hub.repositories[repository].get(name)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if body:
            self.hub.asked.append(f"{repository}/{name}")
        self._send(200, data, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, body=body)

    def _commit(self, repository: str, revision: str) -> str | None:
        commit = self.hub.commit(repository, revision)
        if commit is None:
            code = "RevisionNotFound" if repository in self.hub.repositories else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})
        return commit

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def fill_cache(cache: Path, repository: str, files: Mapping[str, bytes], commit: str = COMMIT) -> Path:
    """A model as the hub's library leaves it on disk: blobs, and a snapshot of links to them. The snapshot's folder."""
    model = cache / f"models--{repository.replace('/', '--')}"
    snapshot = model / "snapshots" / commit
    for name, data in files.items():
        blob, link = model / "blobs" / hashlib.sha1(data).hexdigest(), snapshot / name
        for folder in (blob.parent, link.parent, model / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(Path(*[".."] * len(link.relative_to(model).parent.parts), "blobs", blob.name))
    (model / "refs" / "main").write_text(commit)
    return snapshot
