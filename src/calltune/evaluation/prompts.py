"""Test rows -> prompts for the decoding engine: tokens, what holds the answer, how it is drawn.

Items made while others are at work.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from calltune.data.batching import check_control_tokens, prompt_tokens
from calltune.data.prepared import PreparedRow
from calltune.errors import DataError, OptionError
from calltune.evaluation.options import AnswerOptions
from calltune.formats import FORMATS, Format
from calltune.generation.sequence import Prompt, Sampling, sort_by_shared_prefix
from calltune.models.loading import LoadedModel
from calltune.schemas.tools import UnusableRow, read_tools
from calltune.types import Tool

if TYPE_CHECKING:
    from calltune.generation.constraints import Constrainer


T = TypeVar("T")


def prefetch(items: Iterator[T], most: int) -> Iterator[T]:
    """The items, of which up to `most` are made ahead of time, in one other thread."""
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = deque(pool.submit(next, items, end) for _ in range(most))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in coming:
                future.cancel()


PREFETCHED = 32
"""So many prompts are made before their turn, where something holds their answers."""


class RowSample(NamedTuple):
    """A row to be answered, and the so-manieth answer to it that is wanted."""

    row: PreparedRow
    sample: int

    @property
    def key(self) -> str:
        """A name of its own."""
        return f"{self.row.id} {self.sample}"


class PromptBuilder:
    """PromptBuilder to one model, and their prompts."""

    def __init__(
        self, samples: Sequence[RowSample], loaded: LoadedModel, options: AnswerOptions
    ) -> None:
        families = {wanted.row.format for wanted in samples}
        for name in families:
            check_control_tokens(loaded.tokenizer, FORMATS[name], loaded.reference)
        self._options = options
        self._tokenizer = loaded.tokenizer
        self._by_key = {wanted.key: wanted for wanted in samples}
        self.stops = stop_tokens(loaded.tokenizer, families)
        self.notes: dict[str, tuple[str, ...]] = {}
        """By a prompt's id, what of the tools' schemas its answer is not held to."""
        self._constrainers = (
            {name: constrainer_of(loaded, name, self.stops) for name in families}
            if options.constrain
            else {}
        )

    def __getitem__(self, key: str) -> RowSample:
        """The wanted of a prompt's id."""
        return self._by_key[key]

    def prompts(self) -> Iterator[Prompt]:
        """A prompt for each wanted, in an order that is quick to decode.

        What holds an answer takes milliseconds and memory to make: it is made while others are
        answered, and not long before its turn.
        """
        made = self._prompts()
        return prefetch(made, PREFETCHED) if self._constrainers else made

    def _prompts(self) -> Iterator[Prompt]:
        bare = [
            Prompt(key, prompt_tokens(self._tokenizer, row.prompt, FORMATS[row.format]))
            for key, (row, _) in self._by_key.items()
        ]
        for prompt in sort_by_shared_prefix(bare):
            row, sample = self._by_key[prompt.id]
            if row.format in self._constrainers:
                constrained = self._constrainers[row.format].constrain(list(tools_of(row).values()))
                self.notes[prompt.id] = constrained.unenforced_keywords
                prompt = prompt._replace(constraint=constrained.constraint)
            yield prompt._replace(sampling=self._draw(row, sample))

    def _draw(self, row: PreparedRow, sample: int) -> Sampling | None:
        options = self._options
        if options.temperature == 0:
            return None
        # Of its own for every answer, and the same whatever else is asked.
        name = f"{options.seed} {row.id} {sample}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest())
        return Sampling(options.temperature, options.top_p, seed)


def tools_of(row: PreparedRow) -> dict[str, Tool]:
    """The tools that a row offers, by name.

    Raises:
        DataError: they cannot be read.
    """
    try:
        return read_tools(list(row.tools)).by_name
    except UnusableRow as error:
        raise DataError(
            f"The tools of test row {row.id} cannot be read ({error}); run prep again"
        ) from error


def constrainer_of(loaded: LoadedModel, prompt_format: str, stops: Sequence[int]) -> "Constrainer":
    """What holds a model's answers to tools."""
    import mlx.core as mx

    from calltune.generation.constraints import Constrainer

    # Nothing is computed: the shape is known before.
    n_tokens = loaded.model(mx.array([[0]])).shape[-1]
    return Constrainer(loaded.tokenizer, FORMATS[prompt_format], stops, n_tokens)


def stop_tokens(tokenizer: Any, families: Iterable[str]) -> list[int]:
    """The model's own end tokens and the formats': a base model may know only one kind."""
    stops = {stop for name in families for stop in FORMATS[name].stop_tokens}
    encoded = [tokenizer.encode(stop, add_special_tokens=False) for stop in stops]
    return sorted({ids[0] for ids in encoded if len(ids) == 1} | set(tokenizer.eos_token_ids))


def prompt_format_of(name: str | None, tokenizer: Any, model: str) -> Format:
    """The prompt family of this name; without one, the family whose tokens the model has.

    Raises:
        OptionError: there is no such family, or the model's tokens tell none.
    """
    if name is not None and name not in FORMATS:
        raise OptionError(f"No format {name}; choose one of {', '.join(FORMATS)}")
    if name is not None:
        check_control_tokens(tokenizer, FORMATS[name], model)
        return FORMATS[name]
    for prompt_format in FORMATS.values():
        try:
            check_control_tokens(tokenizer, prompt_format, model)
        except OptionError:
            continue
        return prompt_format
    raise OptionError(
        f"{model} has the tokens of no known format; give the one it was trained with as --format "
        f"{' or '.join(FORMATS)}"
    )
