"""The uvicorn server: binds the address, announces it, and shuts down gracefully."""

import socket
from typing import Any

import uvicorn

from calltune.errors import OptionError

GRACE_SECONDS = 330
"""After SIGTERM, running answers have this long to complete."""


def run_server(app: Any, host: str, port: int) -> None:
    """Serve an ASGI application until SIGTERM or Ctrl-C, then let running answers complete.

    Prints "Serving on URL" once it accepts connections. Port 0 takes a free one.

    Raises:
        OptionError: the address cannot be listened on.
    """
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(address_family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OptionError(
                f"{host}, port {port}, cannot be listened on ({error.strerror}); choose another "
                "with --host and --port"
            ) from error
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _Server(config, _url(host, listener.getsockname()[1])).run(sockets=[listener])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the URL."""
        await super().startup(sockets)
        if self.started:
            print(f"Serving on {self._url}", flush=True)
