"""Prompts for the decoding engine, made from test rows: tokens, grammar constraint, sampling."""

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

PREFETCHED = 32
"""How many prompts are made ahead of their turn where answers are constrained."""


class RowSample(NamedTuple):
    """A row to be answered, and which of several answers to it is wanted."""

    row: PreparedRow
    sample: int
    """From 0."""

    @property
    def key(self) -> str:
        """The id of its prompt."""
        return f"{self.row.id} {self.sample}"


class PromptBuilder:
    """Makes the prompts of samples for one model.

    Args:
        samples: What is to be answered.
        loaded: The model that answers.
        options: How it answers.

    Raises:
        OptionError: the model lacks the special tokens of a row's prompt format.
    """

    def __init__(
        self, samples: Sequence[RowSample], loaded: LoadedModel, options: AnswerOptions
    ) -> None:
        prompt_formats = {sample.row.format for sample in samples}
        for name in prompt_formats:
            check_control_tokens(loaded.tokenizer, FORMATS[name], loaded.reference)
        self._options = options
        self._tokenizer = loaded.tokenizer
        self._by_key = {sample.key: sample for sample in samples}
        self.stops = stop_tokens(loaded.tokenizer, prompt_formats)
        self.notes: dict[str, tuple[str, ...]] = {}
        """By a prompt's id, what of the tools' schemas cannot be enforced in its answer."""
        self._constrainers = (
            {name: constrainer_of(loaded, name, self.stops) for name in prompt_formats}
            if options.constrain
            else {}
        )

    def __getitem__(self, key: str) -> RowSample:
        """The sample of a prompt's id."""
        return self._by_key[key]

    def prompts(self) -> Iterator[Prompt]:
        """A prompt for each sample, in an order that is quick to decode.

        A constraint takes milliseconds and memory to make: it is made while other prompts are
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
        # A seed of its own for every answer, whatever else is answered beside it.
        name = f"{options.seed} {row.id} {sample}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest())
        return Sampling(options.temperature, options.top_p, seed)


def prefetch(items: Iterator[T], n_ahead: int) -> Iterator[T]:
    """The same items, of which up to `n_ahead` are made ahead of time in one other thread."""
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = deque(pool.submit(next, items, end) for _ in range(n_ahead))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in coming:
                future.cancel()


def tools_of(row: PreparedRow) -> dict[str, Tool]:
    """The tools that a test row offers, by name.

    Raises:
        DataError: the row's tools are not valid.
    """
    try:
        return read_tools(list(row.tools)).by_name
    except UnusableRow as error:
        raise DataError(
            f"The tools of test row {row.id} cannot be read ({error}); run prep again"
        ) from error


def constrainer_of(loaded: LoadedModel, prompt_format: str, stops: Sequence[int]) -> "Constrainer":
    """The constrainer that keeps a model's answers to calls of given tools."""
    import mlx.core as mx

    from calltune.generation.constraints import Constrainer

    # MLX computes nothing here, as the shape is known without.
    n_tokens = loaded.model(mx.array([[0]])).shape[-1]
    return Constrainer(loaded.tokenizer, FORMATS[prompt_format], stops, n_tokens)


def stop_tokens(tokenizer: Any, prompt_formats: Iterable[str]) -> list[int]:
    """The ids of the tokens that end an answer: the model's own and those of the prompt formats.

    A base model may know only one of the two kinds.
    """
    stops = {stop for name in prompt_formats for stop in FORMATS[name].stop_tokens}
    encoded = [tokenizer.encode(stop, add_special_tokens=False) for stop in stops]
    return sorted({ids[0] for ids in encoded if len(ids) == 1} | set(tokenizer.eos_token_ids))


def prompt_format_of(name: str | None, tokenizer: Any, model: str) -> Format:
    """The prompt format of this name; without a name, the one whose tokens the model has.

    Raises:
        OptionError: there is no such format, or the model has the tokens of none.
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
