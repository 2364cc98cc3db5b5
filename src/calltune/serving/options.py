"""The options of `calltune serve`, from which `serving.build` makes a server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from calltune.errors import OptionError
from calltune.models.options import (
    BaseModelOption,
    DeviceOption,
    FormatOption,
    MaxTokensOption,
    check_minimums,
)

_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/\s]+")
"""Scheme, host and port, as browsers send them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(DeviceOption, MaxTokensOption, FormatOption, BaseModelOption):
    """Options of `calltune serve`."""

    adapter_path: tuple[str, ...] = ()
    """Folders of adapters, FOLDER or NAME=FOLDER. Requests choose one by its name (by default the
    folder's), or the base model by its own name."""
    host: str = "127.0.0.1"
    """Address to listen on. One that other machines can reach needs a key, in the environment
    variable CALLTUNE_API_KEY."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    words: Literal["base", "tuned"] = "base"
    """Which model writes answers in text: base, since adapters are trained on calls alone, or
    tuned."""
    repeat_calls: bool = False
    """Allow a call that was already made since the user's last message. Small models often repeat
    themselves, so by default the answer is text then."""
    batch_size: int | None = None
    """Answers that are generated at once. By default 128 on an NVIDIA GPU, else 16."""
    queue: int = 64
    """Answers that may wait in addition; more are refused with status 429."""
    timeout: float = 300.0
    """Seconds in which an answer must be complete; later it is cancelled with status 503."""
    max_tokens: int = 1024
    max_context: int | None = None
    """Maximum length of prompt and answer together, in tokens. By default 8192, or less where the
    caches of all answers would take more than a quarter of the free memory."""
    allowed_hosts: tuple[str, ...] = ()
    """Other host names that requests may use for this server; * is any."""
    max_schema_bytes: int = 1 << 20
    """Maximum size of the JSON Schemas of all tools of a request together, in bytes. Where the
    tools do not fit into --max-context, those that suit the question are offered."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may send requests, such as https://app.example; * is any, which
    needs a key. By default none."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.model is None and not self.adapter_path:
            raise OptionError("No model; name one with --model, or an adapter with --adapter-path")
        check_minimums(self, batch_size=1, max_tokens=1, max_context=1, max_schema_bytes=1)
        if self.queue < 0:
            raise OptionError(f"--queue is {self.queue}; give 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")
        if not 0 <= self.port < 65536:
            raise OptionError(f"--port is {self.port}; give 0 to 65535")
        for origin in self.allowed_origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise OptionError(
                    f"--allowed_origins {origin} is no origin; give scheme and host alone, such as "
                    "https://app.example or http://localhost:5173"
                )

    def adapters(self) -> dict[str, Path]:
        """The folders of the adapters by name, in the order given.

        Raises:
            OptionError: two adapters have the same name.
        """
        named = dict(self._named_adapters())
        if len(named) < len(self.adapter_path):
            raise OptionError("Two adapters have the same name; write NAME=FOLDER")
        return named

    def _named_adapters(self) -> "Iterator[_NamedAdapter]":
        for given in self.adapter_path:
            name, equals, folder = given.partition("=")
            if equals:
                yield _NamedAdapter(name, Path(folder))
            else:
                yield _NamedAdapter(Path(given).resolve().name, Path(given))


class _NamedAdapter(NamedTuple):
    name: str
    folder: Path
