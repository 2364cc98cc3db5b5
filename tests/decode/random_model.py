"""Models of random weights whose answers are held to grammars, and what a grammar accepts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_tokenizer

from calltune.calls import Tool
from calltune.decode.constrain import Constrainer
from calltune.decode.engine import Prompt, complete
from calltune.decode.row import Sampling
from calltune.formats import FORMATS
from calltune.formats.grammar import ANY_CALLS, Wanted

import tiny


class Random:
    """A model of random weights with a byte tokenizer, and how it answers."""

    def __init__(self, folder: Path, config: dict[str, Any], name: str) -> None:
        self.model = tiny.make_model(config)
        self.family = FORMATS[name]
        self.stops = config["eos_token_id"]
        self.tokenizer = load_tokenizer(folder)
        self.constrainer = Constrainer(
            self.tokenizer, self.family, self.stops, config["vocab_size"]
        )

    def answers(
        self,
        tools: Sequence[Tool],
        count: int,
        limit: int = 700,
        wanted: Wanted = ANY_CALLS,
    ) -> list[str]:
        """The texts of those answers that came to an end."""
        prompts = [
            Prompt(
                str(i),
                [7, 8, 9 + i],
                self.constrainer.hold(tools, wanted).constraint,
                Sampling(1.5, 1.0, i),
            )
            for i in range(count)
        ]
        found = complete(
            self.model, prompts, stop_tokens=self.stops, max_tokens=limit, batch_size=count
        )
        return [self.tokenizer.decode(c.tokens) for c in found if c.finish == "stop"]


def accepts(
    at_random: Random, tools: Sequence[Tool], text: str, wanted: Wanted = ANY_CALLS
) -> bool:
    """Whether the text is a whole answer that the grammar admits."""
    held = at_random.constrainer.hold(tools, wanted).constraint
    assert held is not None
    matcher, _ = held.ask(0)
    encode = at_random.tokenizer.encode
    # Letter by letter, so that a control token is spelled, as a model might.
    tokens = [token for letter in text for token in encode(letter, add_special_tokens=False)]
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
