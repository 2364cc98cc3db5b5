"""A base model loaded once with all its adapters, and the batches that it answers in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from calltune.errors import OptionError
from calltune.generation.kv_cache import GROWTH_STEP, LENGTH_MULTIPLE, KVCache
from calltune.generation.scheduler import PrefillPolicy, Scheduler
from calltune.models.adapters import AdapterSelection, attach_adapters, is_plain_lora
from calltune.models.backend import Backend
from calltune.models.loading import LoadedModel, load
from calltune.models.memory import device_bytes
from calltune.serving.limits import Limits

PREFILL_TOKENS = 256
PREFILL_TOKENS_GPU = 4096
"""Prompts are fed so many positions at a time, and in between every answer gets its next token."""


MAX_CONTEXT = 8192
SHARE = 4
"""One part in so many of the memory that is free may be taken for what rows remember."""


class Loaded(NamedTuple):
    """A model, and the names by which it is asked."""

    model: LoadedModel
    names: dict[str, int]
    """By each name the number of an adapter; 0 is none."""
    choice: AdapterSelection | None
    """What chooses between the adapters."""


def load_all(reference: str, adapters: dict[str, Path], backend: Backend) -> Loaded:
    """Load a model and its adapters by their names.

    An adapter that is no plain LoRA is put on for all, and has to be the only one.

    Raises:
        AdapterMismatch: the adapters cannot stand beside each other, or are of another model.
        ModelNotFound: no such model or adapter.
        OptionError: an adapter has the base model's name.
    """
    if reference in adapters:
        raise OptionError(f"An adapter is called {reference}, as the model is; write NAME=FOLDER")
    folders = list(adapters.values())
    if len(folders) == 1 and not is_plain_lora(folders[0]):
        return Loaded(load(reference, backend, folders[0]), {next(iter(adapters)): 0}, None)
    loaded = load(reference, backend)
    choice = attach_adapters(loaded.model, folders, reference) if folders else None
    names = {name: number for number, name in enumerate(adapters, start=1)}
    return Loaded(loaded, names | {reference: 0}, choice)


class Room(NamedTuple):
    """How much the rows of a server may hold."""

    size: int
    """Answers that are written at once."""
    n_kept: int
    """Finished rows that are kept for prompts to come."""
    context_tokens: int
    """Of prompt and answer together."""
    n_bytes: int
    """What all rows take when they are as long as they may be."""


def room_for(model: Any, backend: Backend, size: int, context_tokens: int | None) -> Room:
    """Room for `size` answers; the context is what memory allows where none is given."""
    cache = KVCache(model, 1)
    cache.forward([0], mx.array([[0]]), [1])
    n_kept = max(4, size // 4)
    # Every slot has room for the longest row.
    per_token = cache.n_bytes // cache.capacity * (size + n_kept)
    if context_tokens is None:
        fitting = device_bytes(backend) // SHARE // per_token
        context_tokens = max(GROWTH_STEP, min(MAX_CONTEXT, fitting // GROWTH_STEP * GROWTH_STEP))
    return Room(size, n_kept, context_tokens, per_token * context_tokens)


def scheduler_factory(
    model: Any, choice: AdapterSelection | None, stops: frozenset[int], limits: Limits, room: Room
) -> Callable[[], Scheduler]:
    """What makes empty batches for as many answers as there is room for."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    policy = (
        PrefillPolicy(PREFILL_TOKENS_GPU, 1, LENGTH_MULTIPLE)
        if on_gpu
        else PrefillPolicy(PREFILL_TOKENS, 1)
    )

    def make() -> Scheduler:
        return Scheduler(
            model,
            stops,
            limits.answer_tokens,
            room.size,
            policy=policy,
            n_kept=room.n_kept,
            adapters=choice,
        )

    return make
