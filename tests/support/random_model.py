"""Models of random weights that answer under grammars, and what a grammar accepts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load_tokenizer

from calltune.formats import FORMATS
from calltune.formats.grammar import ANY_CALLS, OutputSpec
from calltune.generation.constraints import Constrainer
from calltune.generation.engine import Prompt, complete
from calltune.generation.sequence import Sampling
from calltune.types import Tool

from support import tiny

LEANS_TO = {'"': 4.0, "\\": 4.0, "}": 4.0, "{": 2.0}
"""Added to the logits of characters that end a value, since strings would otherwise have hundreds
of characters, and of one that begins a call, since there would be few."""


class Leaning:
    """A model with a bias added to its logits."""

    def __init__(self, model: Any, bias: mx.array) -> None:
        self.layers = model.layers
        self.make_cache = model.make_cache
        self._model = model
        self._bias = bias

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self._model(tokens, cache=cache) + self._bias
        return logits


class Random:
    """A model of random weights with a byte tokenizer."""

    def __init__(self, folder: Path, config: dict[str, Any], name: str) -> None:
        self.prompt_format = FORMATS[name]
        self.stops = config["eos_token_id"]
        self.tokenizer = load_tokenizer(folder)
        liked = self.tokenizer.convert_tokens_to_ids(list(LEANS_TO))
        bias = mx.zeros(config["vocab_size"])
        bias[mx.array(liked)] = mx.array(list(LEANS_TO.values()))
        self.model = Leaning(tiny.make_model(config), bias)
        self.constrainer = Constrainer(
            self.tokenizer, self.prompt_format, self.stops, config["vocab_size"]
        )

    def answers(
        self,
        tools: Sequence[Tool],
        count: int,
        limit: int = 700,
        wanted: OutputSpec = ANY_CALLS,
    ) -> list[str]:
        """The texts of the answers that ended with a stop token."""
        prompts = [
            Prompt(
                str(i),
                [7, 8, 9 + i],
                self.constrainer.constrain(tools, wanted).constraint,
                Sampling(1.5, 1.0, i),
            )
            for i in range(count)
        ]
        found = complete(
            self.model, prompts, stop_tokens=self.stops, max_tokens=limit, batch_size=count
        )
        return [self.tokenizer.decode(c.tokens) for c in found if c.finish_reason == "stop"]


def accepts(
    at_random: Random, tools: Sequence[Tool], text: str, wanted: OutputSpec = ANY_CALLS
) -> bool:
    """Whether the grammar accepts the text as a whole answer."""
    constraint = at_random.constrainer.constrain(tools, wanted).constraint
    assert constraint is not None
    matcher, _ = constraint.mask_request(0)
    encode = at_random.tokenizer.encode
    # Character by character, so that a control token is spelled out, as a model might.
    tokens = [token for character in text for token in encode(character, add_special_tokens=False)]
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
