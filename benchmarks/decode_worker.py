"""One decoding engine at work: it loads the model and answers the prompts of every line read."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answers = list[list[int]]
"""The tokens written for each prompt, stop tokens left out."""
Engine = Callable[[list[list[int]]], Answers]


def calltune(given: dict[str, Any]) -> Engine:
    """The engine of calltune's tests."""
    from calltune.models.backend import choose

    backend = choose()
    from calltune.decode.engine import Prompt, complete
    from calltune.models.load import load

    adapter = Path(given["adapter"]) if given["adapter"] else None
    loaded = load(given["model"], backend, adapter)

    def answer(prompts: list[list[int]]) -> Answers:
        completions = complete(
            loaded.model,
            # As trial.py does: prompts of like length side by side.
            sorted(
                (Prompt(str(i), tokens) for i, tokens in enumerate(prompts)),
                key=lambda prompt: len(prompt.tokens),
            ),
            stop_tokens=given["stops"],
            max_tokens=given["max_tokens"],
            batch_size=given["batch_size"],
        )
        by_id = {completion.id: completion.tokens for completion in completions}
        return [by_id[str(i)] for i in range(len(prompts))]

    return answer


def mlx_lm(given: dict[str, Any]) -> Engine:
    """mlx_lm's batch_generate with all prompts."""
    from mlx_lm import load
    from mlx_lm.generate import batch_generate

    model, tokenizer = load(given["folder"], adapter_path=given["adapter"] or None)[:2]
    tokenizer.eos_token_ids = set(given["stops"])

    def answer(prompts: list[list[int]]) -> Answers:
        found = batch_generate(
            model,
            tokenizer,
            prompts,
            max_tokens=given["max_tokens"],
            return_token_ids=True,
            completion_batch_size=given["batch_size"],
        )
        return [_without(tokens, given["stops"]) for tokens in found.token_ids]

    return answer


def manual(given: dict[str, Any]) -> Engine:
    """One mlx_lm generation for each prompt, as the manual's scripts do."""
    from mlx_lm import load, stream_generate

    model, tokenizer = load(given["folder"], adapter_path=given["adapter"] or None)[:2]
    tokenizer.eos_token_ids = set(given["stops"])

    def answer(prompts: list[list[int]]) -> Answers:
        return [
            _without(
                [
                    part.token
                    for part in stream_generate(
                        model, tokenizer, tokens, max_tokens=given["max_tokens"]
                    )
                ],
                given["stops"],
            )
            for tokens in prompts
        ]

    return answer


def _without(tokens: list[int], stops: list[int]) -> list[int]:
    return [token for token in tokens if token not in stops]


def main() -> None:
    """Load the engine named on the command line and serve it until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = json.loads(sys.stdin.readline())
    engine = {"calltune": calltune, "mlx_lm": mlx_lm, "manual": manual}[sys.argv[1]](given)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        prompts = json.loads(line)
        started = time.perf_counter()
        found = engine(prompts)
        seconds = time.perf_counter() - started
        answers.write(json.dumps({"seconds": seconds, "answers": found}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
