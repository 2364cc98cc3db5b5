"""An application on an address, until it is told to end."""

import socket
from typing import Any

import uvicorn

from calltune.errors import OptionError

GRACE_SECONDS = 330
"""After SIGTERM answers that are being written have so long."""


def listen(app: Any, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C, and then what is being answered.

    Raises:
        OptionError: the address cannot be had.
    """
    prompt_format = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(prompt_format, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
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
        _Server(config, _address(host, listening.getsockname()[1])).run(sockets=[listening])


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where, once it is there."""
        await super().startup(sockets)
        if self.started:
            print(f"Serving on {self._address}", flush=True)
