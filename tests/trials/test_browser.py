"""The clients in a web page of another origin: what a browser asks and sends beforehand is allowed.

Source: the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol
"""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

from support.clients import ASKED, bundle, check, read_lines
from support.commands_needed import CHROMIUM, find_command, needs
from support.node import NEEDS_NODE
from support.running import serving

pytestmark = [pytest.mark.real, pytest.mark.slow, NEEDS_NODE, needs(CHROMIUM)]

PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
const lines = [];
console.log = (line) => lines.push(line);
try {
  await import("/client.js");
} catch (error) {
  lines.push(JSON.stringify({ name: "page", error: String(error) }));
}
await fetch("/found", { method: "POST", body: lines.join("\\n") });
</script>"""


class Site:
    """A site with one page, which runs a bundled script and sends back what it logs."""

    def __init__(self, script: bytes) -> None:
        self.found: Queue[str] = Queue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_script = self.path == "/client.js"
                self.answer(
                    script if is_script else PAGE.encode(), "javascript" if is_script else "html"
                )

            def do_POST(self) -> None:
                site.found.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(b"", "plain")

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"text/{kind}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def site(script: bytes) -> Iterator[Site]:
    served = Site(script)
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


@contextmanager
def browsing(address: str, profile: Path) -> Iterator[None]:
    browser = find_command(CHROMIUM)
    assert browser is not None
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    process = subprocess.Popen([*command, address], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("client", ["openai", "ai_sdk"])
def test_a_client_in_a_page_is_served(
    tiny_llama: Path, node_packages: Path, tmp_path: Path, client: str
) -> None:
    with (
        site(bundle(client, node_packages)) as page,
        serving(tiny_llama, "chatml", answer_tokens=400, origins=[page.origin]) as server,
        browsing(f"{page.origin}/?{server.url}/v1", tmp_path / "profile"),
    ):
        found = read_lines(page.found.get(timeout=120))
    check(found, ASKED if client == "openai" else set())
