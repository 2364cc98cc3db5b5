"""Builds a server from its options: the one place where model, engine, limits and app meet."""

from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette

from calltune.errors import OptionError
from calltune.evaluation.prompts import constrainer_of, prompt_format_of, stop_tokens
from calltune.generation.engine import default_batch_size
from calltune.generation.kv_cache import has_plain_kv_cache
from calltune.models.backend import Backend
from calltune.models.loading import base_model_of, context_length
from calltune.serving.access import LOOPBACK, Access
from calltune.serving.app import make_app
from calltune.serving.engine import Engine
from calltune.serving.grammar_pool import N_PROCESSES, GrammarPool
from calltune.serving.limits import Limits
from calltune.serving.loading import (
    Capacity,
    load_with_adapters,
    plan_capacity,
    scheduler_factory,
)
from calltune.serving.options import ServeOptions
from calltune.serving.service import Service


@dataclass(frozen=True, slots=True)
class ChatServer:
    """A server that is ready to be run; see `server.run_server`."""

    app: Starlette
    service: Service
    capacity: Capacity


def build_service(
    options: ServeOptions,
    backend: Backend,
    api_key: str | None = None,
    *,
    n_grammar_processes: int = N_PROCESSES,
    **limits: Any,
) -> ChatServer:
    """Load the model and adapters of `options` onto `backend`, and put a server together.

    `limits` are fields of `Limits` for which there is no option. Nothing is started yet: the
    application's lifespan does that.

    Raises:
        AdapterMismatch: the adapters cannot stand beside each other, or are of another model.
        ModelNotFound: there is no such model or adapter.
        OptionError: the options do not fit the model, or each other.
    """
    adapters = options.adapters()
    reference = options.model or base_model_of(next(iter(adapters.values())))
    model = load_with_adapters(reference, adapters, backend)
    loaded = model.loaded
    if not has_plain_kv_cache(loaded.model):
        raise OptionError(
            f"{reference} keeps more of the past than keys and values, which cannot be served "
            "here; export it and use mlx_lm server"
        )
    prompt_format = prompt_format_of(options.format, loaded.tokenizer, reference)
    stops = stop_tokens(loaded.tokenizer, [prompt_format.name])
    batch_size = options.batch_size or default_batch_size(backend.device)
    capacity = plan_capacity(
        loaded.model, backend, batch_size, options.max_context, context_length(loaded.folder)
    )
    bounds = replace(
        Limits(
            queue=options.queue,
            seconds=options.timeout,
            answer_tokens=options.max_tokens,
            context_tokens=capacity.context_tokens,
            schema_bytes=options.max_schema_bytes,
        ),
        **limits,
    )
    make_scheduler = scheduler_factory(
        loaded.model, model.selection, frozenset(stops), bounds, capacity
    )
    service = Service(
        tokenizer=loaded.tokenizer,
        prompt_format=prompt_format,
        models=model.adapter_numbers,
        engine=Engine(make_scheduler, batch_size + options.queue),
        constrainer=constrainer_of(loaded, prompt_format.name, stops),
        limits=bounds,
        text_model=options.words,
        repeats_calls=options.repeat_calls,
        has_base=not adapters or model.selection is not None,
        grammar_pool=GrammarPool(n_grammar_processes),
    )
    return ChatServer(make_app(service, _access(options, api_key)), service, capacity)


def _access(options: ServeOptions, api_key: str | None) -> Access:
    if options.allowed_hosts:
        hosts = options.allowed_hosts
    elif options.host in LOOPBACK:
        hosts = (*LOOPBACK, options.host)
    else:
        # With a key, a page whose name was pointed here has nothing to send.
        hosts = ("*",)
    return Access(api_key, hosts, options.allowed_origins)
