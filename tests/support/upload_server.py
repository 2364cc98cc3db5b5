"""A small model hub on 127.0.0.1 that takes uploads: repositories, large files, commits."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from support import loopback
from support.loopback import COMMIT, GOOD_TOKEN


@dataclass
class Uploads:
    """What came, in which mood the hub is, and what was asked."""

    is_private: bool | None = None
    """Of the repository; None where there is none yet."""
    breaks_at: str = ""
    """Requests whose path holds this are refused with 400."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The repository's, by path, once they are committed."""
    large: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256, committed or not."""
    log: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def taking(uploads: Uploads) -> Iterator[Uploads]:
    with loopback.serving(_Handler, uploads) as endpoint:
        uploads.endpoint = endpoint
        yield uploads


class _Handler(loopback.Handler):
    hub: Uploads

    def log_message(self, format: str, *args: object) -> None:
        self.hub.log.append(f"{self.command} {self.path}")

    def do_PUT(self) -> None:
        body = self.read_body()
        self.hub.large[self.path.rpartition("/")[2]] = body
        self.send_json({})

    def answer(self) -> None:
        body = self.read_body()
        path = unquote(urlsplit(self.path).path)
        if self.hub.breaks_at and self.hub.breaks_at in path:
            self.send_json({"error": "broken"}, 400)
        elif path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {GOOD_TOKEN}":
            self.send_json({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self.send_json({"files": [_preuploaded(file) for file in files]})
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body)["objects"])
        elif "/commit/" in path:
            self._commit(body)
        elif path.startswith("/api/models/") and self.hub.is_private is not None:
            name = path.removeprefix("/api/models/").split("/revision/")[0]
            self.send_json({"id": name, "private": self.hub.is_private, "siblings": []})
        else:
            self.send_json({"error": "not found"}, 404)

    def _create(self, asked: dict[str, str]) -> None:
        address = f"{self.hub.endpoint}/{asked['organization']}/{asked['name']}"
        is_there = self.hub.is_private is not None
        if not is_there:
            self.hub.is_private = asked.get("visibility") == "private"
        self.send_json({"url": address, "error": "there already"}, 409 if is_there else 200)

    def _batch(self, objects: list[dict[str, object]]) -> None:
        actions = [
            item | {"actions": {"upload": {"href": f"{self.hub.endpoint}/put/{item['oid']}"}}}
            for item in objects
        ]
        self.send_json({"transfer": "basic", "objects": actions})

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                content = self.hub.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.hub.files[value["path"]] = content
        self.send_json(
            {"commitOid": COMMIT, "commitUrl": f"{self.hub.endpoint}/acme/x/commit/{COMMIT}"}
        )


def _preuploaded(file: dict[str, object]) -> dict[str, object]:
    mode = "lfs" if str(file["path"]).endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
