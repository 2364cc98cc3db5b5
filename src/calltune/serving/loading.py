"""Loads a base model with its adapters, and sizes the batch and cache that it answers in.

All adapters stand beside one copy of the base model and are selected per row of a batch, as in
S-LoRA (arXiv 2311.03285).
"""

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
"""How many tokens one prefill feeds; between prefills every running answer gets a token."""
MAX_CONTEXT = 8192
MEMORY_SHARE = 4
"""The caches may take one part in this many of the free memory."""


class ServedModel(NamedTuple):
    """A loaded model with its adapters, and the names that requests give them."""

    loaded: LoadedModel
    adapter_numbers: dict[str, int]
    """The number of the adapter for each model name; 0 is the base model."""
    selection: AdapterSelection | None
    """Selects the adapter of each row; None without separate adapters."""


def load_with_adapters(reference: str, adapters: dict[str, Path], backend: Backend) -> ServedModel:
    """Load the base model `reference` and adapters, by name.

    A single adapter that is no plain LoRA is applied to the model itself, which then has only the
    adapter's name.

    Raises:
        AdapterMismatch: an adapter belongs to another model, or several are no plain LoRA.
        ModelNotFound: there is no such model or adapter.
        OptionError: an adapter has the base model's name.
    """
    if reference in adapters:
        raise OptionError(f"An adapter is called {reference}, as the model is; write NAME=FOLDER")
    folders = list(adapters.values())
    if len(folders) == 1 and not is_plain_lora(folders[0]):
        return ServedModel(load(reference, backend, folders[0]), {next(iter(adapters)): 0}, None)
    loaded = load(reference, backend)
    selection = attach_adapters(loaded.model, folders, reference) if folders else None
    numbers = {name: number for number, name in enumerate(adapters, start=1)}
    return ServedModel(loaded, numbers | {reference: 0}, selection)


class Capacity(NamedTuple):
    """How many answers a server generates at once, and what their cache takes."""

    batch_size: int
    """Answers that are generated at once."""
    n_kept: int
    """Finished sequences that stay in the cache for later prompts with the same prefix."""
    context_tokens: int
    """Maximum length of prompt and answer together."""
    n_bytes: int
    """Size of the cache when every sequence is as long as it may be."""


def plan_capacity(
    model: Any,
    backend: Backend,
    batch_size: int,
    context_tokens: int | None,
    longest: int | None = None,
) -> Capacity:
    """The capacity for a batch size.

    Without `context_tokens` as long as memory allows, and the model's own context, `longest`.
    """
    cache = KVCache(model, 1)
    cache.forward([0], mx.array([[0]]), [1])
    n_kept = max(4, batch_size // 4)
    # Every slot has room for the longest sequence.
    bytes_per_token = cache.n_bytes // cache.capacity * (batch_size + n_kept)
    if context_tokens is None:
        fitting = device_bytes(backend) // MEMORY_SHARE // bytes_per_token
        fitting = fitting // GROWTH_STEP * GROWTH_STEP
        context_tokens = max(GROWTH_STEP, min(MAX_CONTEXT, fitting))
        context_tokens = min(context_tokens, longest or context_tokens)
    return Capacity(batch_size, n_kept, context_tokens, bytes_per_token * context_tokens)


def scheduler_factory(
    model: Any,
    selection: AdapterSelection | None,
    stop_tokens: frozenset[int],
    limits: Limits,
    capacity: Capacity,
) -> Callable[[], Scheduler]:
    """A function that makes an empty scheduler of this capacity."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    policy = (
        PrefillPolicy(PREFILL_TOKENS_GPU, 1, LENGTH_MULTIPLE)
        if on_gpu
        else PrefillPolicy(PREFILL_TOKENS, 1)
    )

    def make() -> Scheduler:
        return Scheduler(
            model,
            stop_tokens,
            limits.answer_tokens,
            capacity.batch_size,
            policy=policy,
            n_kept=capacity.n_kept,
            adapters=selection,
        )

    return make
