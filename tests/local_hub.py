"""A hub on this machine that speaks what huggingface_hub's client asks: repositories are folders, files are plain."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef" * 2 + "01234567"


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """The address of a hub whose repositories are root/OWNER/NAME; a token is demanded for what changes them."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"root": root}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    root: Path

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/.*)?)?", path):
            self._about(match[1], match[2] == "tree")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(self.root / match[1] / match[2])
        else:
            self._answer(404, {"error": path})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, body = urlparse(self.path).path, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = f"http://{self.headers['Host']}"
        if not self.headers.get("Authorization"):
            self._answer(401, {"error": "a token is missing"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            about = json.loads(body)
            repository = f"{about['organization']}/{about['name']}"
            (self.root / repository).mkdir(parents=True, exist_ok=True)
            self._answer(200, {"url": f"{address}/{repository}", "private": about.get("private")})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", path):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            self._commit(self.root / match[1], [json.loads(line) for line in body.splitlines() if line])
            self._answer(200, {"commitUrl": f"{address}/{match[1]}/commit/{SHA}", "commitOid": SHA, "success": True})
        else:
            self._answer(404, {"error": path})

    def _commit(self, repository: Path, operations: list[dict[str, Any]]) -> None:
        for operation in operations:
            if operation["key"] == "file":
                target = repository / operation["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(operation["value"]["content"]))

    def _about(self, name: str, tree: bool) -> None:
        folder = self.root / name
        if not folder.is_dir():
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(folder)) for file in files]
        self._answer(200, [{"type": "file", "path": n, "size": f.stat().st_size, "oid": _etag(f)}
                           for n, f in zip(names, files, strict=True)] if tree else {
            "id": name, "modelId": name, "sha": SHA, "private": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": n} for n in names]})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        self._answer(200, file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": SHA})

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _etag(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()[:40]
