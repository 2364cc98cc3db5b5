"""A base model loaded once with all its adapters, and the batches that it answers in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from calltune.decode.batches import Batches, Pace
from calltune.errors import OptionError
from calltune.models.adapters import Choice, can_be_chosen, put_on_all
from calltune.models.backend import Backend
from calltune.models.load import LoadedModel, load
from calltune.serve.limits import Limits

WIDE_POSITIONS = 512
WIDE_POSITIONS_GPU = 4096
"""Prompts are fed so many positions at a time, and in between every answer gets its next token."""


class Loaded(NamedTuple):
    """A model, and the names by which it is asked."""

    model: LoadedModel
    names: dict[str, int]
    """By each name the number of an adapter; 0 is none."""
    choice: Choice | None
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
    if len(folders) == 1 and not can_be_chosen(folders[0]):
        return Loaded(load(reference, backend, folders[0]), {next(iter(adapters)): 0}, None)
    loaded = load(reference, backend)
    choice = put_on_all(loaded.model, folders, reference) if folders else None
    names = {name: number for number, name in enumerate(adapters, start=1)}
    return Loaded(loaded, names | {reference: 0}, choice)


def batches_maker(
    model: Any, choice: Choice | None, stops: frozenset[int], limits: Limits, size: int
) -> Callable[[], Batches]:
    """What makes empty batches for `size` answers at once."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    pace = Pace(WIDE_POSITIONS_GPU if on_gpu else WIDE_POSITIONS, 1)

    def make() -> Batches:
        return Batches(
            model,
            stops,
            limits.answer_tokens,
            size,
            pace=pace,
            n_kept=max(4, size // 4),
            adapters=choice,
        )

    return make
