"""serve: an OpenAI-compatible endpoint for a model and its adapters."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from calltune.errors import OptionError

if TYPE_CHECKING:
    from calltune.models.backend import Backend
    from calltune.serving.limits import Limits
    from calltune.serving.service import Service

KEY = "CALLTUNE_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of `calltune serve`."""

    adapter_path: tuple[str, ...] = ()
    """Folders of adapters, FOLDER or NAME=FOLDER; requests choose one by its name (the folder's
    unless given), or the base model by its own."""
    model: str | None = None
    """The base model; the one that the first adapter was trained on unless given."""
    format: str | None = None
    """Prompt family: gemma or chatml; unless given, the one whose tokens the model has."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine only with a key, in the environment's
    CALLTUNE_API_KEY."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    words: Literal["base", "tuned"] = "base"
    """Who writes what is no call: the base model, as adapters learn calls alone; or the tuned."""
    repeat_calls: bool = False
    """Give a call again that was made since the user spoke; small models often go round in
    circles, so unless told otherwise the answer is words then."""
    batch_size: int | None = None
    """Answers that are written at once; unless given 128 on an NVIDIA GPU, else 16."""
    queue: int = 64
    """Answers that may wait beside them; more are refused with 429."""
    timeout: float = 300.0
    """Seconds until an answer must be there; later it is given up with 503."""
    max_tokens: int = 1024
    """Longest answer, in tokens; requests may ask for less."""
    max_context: int | None = None
    """Longest prompt and answer together, in tokens; unless given 8192, or fewer where all rows
    together would take more than a quarter of the free memory."""
    allowed_hosts: tuple[str, ...] = ()
    """Other names by which requests may call this server; * is any."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may ask from a browser, as https://app.example; none unless named."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.model is None and not self.adapter_path:
            raise OptionError("No model; name one with --model, or an adapter with --adapter-path")
        for name in ("batch_size", "max_tokens", "max_context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} is {value}; it must be at least 1")
        if self.queue < 0:
            raise OptionError(f"--queue is {self.queue}; give 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")
        if not 0 <= self.port < 65536:
            raise OptionError(f"--port is {self.port}; give 0 to 65535")


def run(options: ServeOptions) -> Path:
    """Answer requests until SIGTERM or Ctrl-C, then what is being answered; the first adapter.

    Raises:
        AdapterMismatch: the adapters cannot stand beside each other, or are of another model.
        ModelNotFound: no such model or adapter.
        OptionError: an address beyond this machine and no key, or one that is taken.
    """
    from calltune.models.backend import choose, print_backend
    from calltune.serving.access import LOOPBACK, Access

    api_key = os.environ.get(KEY) or None
    is_local = options.host in LOOPBACK
    if api_key is None and not is_local:
        raise OptionError(
            f"--host {options.host} can be reached from other machines; set {KEY} to a secret that "
            "requests must send, or listen on 127.0.0.1"
        )
    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.serving.app import make_app
    from calltune.serving.server import listen

    # With a key a page that another name leads here from has nothing to send.
    hosts = (*LOOPBACK, options.host, *options.allowed_hosts) if is_local else ("*",)
    access = Access(api_key, options.allowed_hosts or hosts, options.allowed_origins)
    service = _service(options, backend)
    print(f"Models: {', '.join(service.models)}", flush=True)
    listen(make_app(service, access), options.host, options.port)
    return Path(_named(options.adapter_path[0])[1]) if options.adapter_path else Path()


def _service(options: ServeOptions, backend: "Backend") -> "Service":
    from calltune.evaluation.prompts import constrainer_of, prompt_format_of, stop_tokens
    from calltune.generation.engine import default_batch_size
    from calltune.generation.kv_cache import has_plain_kv_cache
    from calltune.models.loading import base_model_of
    from calltune.serving.engine import Engine
    from calltune.serving.loading import load_all, room_for, scheduler_factory
    from calltune.serving.service import Service

    named = dict(_named(each) for each in options.adapter_path)
    if len(named) < len(options.adapter_path):
        raise OptionError("Two adapters have the same name; write NAME=FOLDER")
    folders = {name: Path(folder) for name, folder in named.items()}
    reference = options.model or base_model_of(next(iter(folders.values())))
    loaded, models, choice = load_all(reference, folders, backend)
    if not has_plain_kv_cache(loaded.model):
        raise OptionError(
            f"{reference} keeps more of the past than keys and values, which cannot be served "
            "here; export it and use mlx_lm server"
        )
    prompt_format = prompt_format_of(options.format, loaded.tokenizer, reference)
    stops = stop_tokens(loaded.tokenizer, [prompt_format.name])
    size = options.batch_size or default_batch_size(backend.device)
    room = room_for(loaded.model, backend, size, options.max_context)
    print(
        f"Room: {room.size} answers at once, {room.context_tokens} tokens each with the prompt, "
        f"{room.n_bytes / 1e9:.1f} GB at most"
    )
    limits = _limits(options, room.context_tokens)
    make_scheduler = scheduler_factory(loaded.model, choice, frozenset(stops), limits, room)
    return Service(
        tokenizer=loaded.tokenizer,
        prompt_format=prompt_format,
        models=models,
        engine=Engine(make_scheduler, size + options.queue),
        constrainer=constrainer_of(loaded, prompt_format.name, stops),
        limits=limits,
        words=options.words,
        repeats_calls=options.repeat_calls,
    )


def _limits(options: ServeOptions, context_tokens: int) -> "Limits":
    from calltune.serving.limits import Limits

    return Limits(
        queue=options.queue,
        seconds=options.timeout,
        answer_tokens=options.max_tokens,
        context_tokens=context_tokens,
    )


class _Named(NamedTuple):
    name: str
    folder: str


def _named(given: str) -> _Named:
    """An adapter's name and folder: NAME=FOLDER, or FOLDER alone."""
    name, equals, folder = given.partition("=")
    return _Named(name, folder) if equals else _Named(Path(given).resolve().name, given)
