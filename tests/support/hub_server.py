"""A small dataset hub on 127.0.0.1 that speaks as much of the hub's protocol as its clients ask."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from support import loopback
from support.loopback import COMMIT, GOOD_TOKEN

DATASET = "acme/xlam-shaped"


@dataclass
class Hub:
    """What is served, in which mood, and what was asked."""

    files: dict[str, bytes]
    is_gated: bool = False
    delay_s: float = 0.0
    n_breaks: int = 0
    """How many more data responses end half-way."""
    log: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    n_broken: int = 0
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    with loopback.serving(_Handler, hub) as endpoint:
        hub.endpoint = endpoint
        yield hub


class _Handler(loopback.Handler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        with self.hub.lock:
            self.hub.log.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")

    def answer(self) -> None:
        body = self.read_body()
        time.sleep(self.hub.delay_s)
        url = urlsplit(self.path)
        path = unquote(url.path)
        api, data = f"/api/datasets/{DATASET}", f"/datasets/{DATASET}/resolve/"
        if path.startswith(data):
            if not self._refused():
                self._file(path.removeprefix(data).split("/", 1)[1])
        elif path == api or path.startswith(f"{api}/revision/"):
            self.send_json(
                {
                    "id": DATASET,
                    "sha": COMMIT,
                    "gated": self.hub.is_gated,
                    "private": False,
                    "siblings": [{"rfilename": name} for name in self.hub.files],
                }
            )
        elif path.startswith(f"{api}/tree/"):
            if not self._refused():
                self._tree(path.removeprefix(f"{api}/tree/").partition("/")[2], url.query)
        elif path.startswith(f"{api}/paths-info/"):
            if not self._refused():
                asked = (
                    json.loads(body)["paths"]
                    if body.startswith(b"{")
                    else parse_qs(body.decode())["paths"]
                )
                self.send_json([self._entry(name) for name in asked if name in self.hub.files])
        else:
            self._error(404, "RepoNotFound", "Repository not found")

    def _refused(self) -> bool:
        sent = self.headers.get("Authorization", "")
        if not self.hub.is_gated or sent == f"Bearer {GOOD_TOKEN}":
            return False
        message = f"Access to dataset {DATASET} is restricted."
        self._error(403 if sent else 401, "GatedRepo", message)
        return True

    def _tree(self, folder: str, query: str) -> None:
        prefix = f"{folder}/" if folder else ""
        is_recursive = parse_qs(query).get("recursive", ["false"])[0].lower() in ("true", "1")
        names = [name for name in self.hub.files if name.startswith(prefix)]
        if folder and not names:
            self._error(404, "EntryNotFound", "no such folder")
            return
        folders = {
            name.removeprefix(prefix).split("/")[0]
            for name in names
            if "/" in name.removeprefix(prefix)
        }
        entries = [
            {"type": "directory", "path": prefix + f, "oid": "0" * 40, "size": 0}
            for f in sorted(folders)
        ]
        entries += [
            self._entry(n) for n in names if is_recursive or "/" not in n.removeprefix(prefix)
        ]
        self.send_json(entries)

    def _entry(self, name: str) -> dict[str, object]:
        content = self.hub.files[name]
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }

    def _file(self, name: str) -> None:
        content = self.hub.files.get(name)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        start, end = 0, len(content)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self._send(content[start:end], name)

    def _send(self, part: bytes, name: str) -> None:
        with self.hub.lock:
            breaks = self.hub.n_breaks > 0 and name.startswith("data/") and len(part) > 1000
            self.hub.n_breaks -= breaks
            self.hub.n_broken += breaks
        if breaks:
            part = part[: len(part) // 2]
            self.close_connection = True
        for at in range(0, len(part), 1 << 16):
            try:
                self.wfile.write(part[at : at + (1 << 16)])
            except OSError:
                return
            with self.hub.lock:
                self.hub.bytes_sent += len(part[at : at + (1 << 16)])

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send_json({"error": message}, status, headers)
