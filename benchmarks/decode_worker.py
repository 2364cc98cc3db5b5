"""The process of one decoding engine: answers a whole task for each line on stdin."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from decode_task import Task

Answers = list[list[int]]
"""The tokens generated for each prompt, without stop tokens."""
Engine = Callable[[], Answers]


def calltune(task: Task, given: dict[str, Any]) -> Engine:
    """The engine of calltune test; with `constrained`, answers are constrained to their tools."""
    from calltune.models.backend import choose

    backend = choose("cpu" if given["cpu"] else "gpu", is_step_small=True)
    from calltune.generation.engine import complete, default_batch_size

    model = _calltunes_model(given, backend)
    prompts = _prompts(task, model, given["constrained"])

    if given["follow"]:
        _follow(task.right)

    def answer() -> Answers:
        completions = complete(
            model,
            prompts(),
            stop_tokens=_stops(task, given),
            max_tokens=max(task.limits),
            batch_size=given["batch_size"] or default_batch_size(backend.device),
        )
        by_id = {completion.id: completion.tokens for completion in completions}
        return [by_id[str(i)] for i in range(len(task.prompts))]

    return answer


def mlx_lm(task: Task, given: dict[str, Any]) -> Engine:
    """mlx_lm's batch_generate with all prompts."""
    from mlx_lm.generate import batch_generate

    model, tokenizer = _mlx_lms_model(task, given)

    def answer() -> Answers:
        found = batch_generate(
            model,
            tokenizer,
            task.prompts,
            max_tokens=task.limits,
            return_token_ids=True,
            **({"completion_batch_size": given["batch_size"]} if given["batch_size"] else {}),
        )
        return [_without(tokens, task.stops) for tokens in found.token_ids]

    return answer


def manual(task: Task, given: dict[str, Any]) -> Engine:
    """One mlx_lm generation for each prompt, as the manual's scripts do."""
    from mlx_lm import stream_generate

    model, tokenizer = _mlx_lms_model(task, given)

    def answer() -> Answers:
        return [
            _without(
                [
                    part.token
                    for part in stream_generate(model, tokenizer, tokens, max_tokens=limit)
                ],
                task.stops,
            )
            for tokens, limit in zip(task.prompts, task.limits, strict=True)
        ]

    return answer


def _prompts(task: Task, model: Any, constrained: bool) -> Callable[[], Iterator[Any]]:
    """A function that makes the prompts in calltune's order, with their constraints."""
    import mlx.core as mx

    from calltune.generation.sequence import Prompt, sort_by_shared_prefix

    bare = [
        Prompt(str(i), tokens, max_tokens=limit)
        for i, (tokens, limit) in enumerate(zip(task.prompts, task.limits, strict=True))
    ]
    if not constrained:
        return lambda: iter(sort_by_shared_prefix(bare))
    from transformers import AutoTokenizer

    from calltune.evaluation.prompts import PREFETCHED, prefetch
    from calltune.formats import FORMATS
    from calltune.generation.constraints import Constrainer
    from calltune.schemas.tools import read_tools

    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    n_tokens = model(mx.array([[0]])).shape[-1]
    constrainer = Constrainer(tokenizer, FORMATS[task.format], task.stops, n_tokens)

    def prompts() -> Iterator[Prompt]:
        for prompt in sort_by_shared_prefix(bare):
            tools = read_tools(task.tools[int(prompt.id)]).tools
            yield prompt._replace(constraint=constrainer.constrain(tools).constraint)

    return lambda: prefetch(prompts(), PREFETCHED)


def _follow(right: list[list[int]]) -> None:
    """Replace what the model samples by the tokens of the right answers; it computes all the same.

    So random weights write realistic answers, and constraints have their usual work.
    """
    import mlx.core as mx

    from calltune.generation import scheduler

    def sample(logits: Any, sequences: list[Any]) -> Any:
        sampled = sampled_by_model(logits, sequences)
        wanted = [
            right[int(each.prompt.id)][len(each.generated)] if each and each.needs_sampling else -1
            for each in sequences
        ]
        told = mx.array(wanted)
        return mx.where(told >= 0, told, sampled)

    sampled_by_model, scheduler.sample = scheduler.sample, sample


def _calltunes_model(given: dict[str, Any], backend: Any) -> Any:
    if given["model"] is None:
        return _random_model(given["setting"])
    from calltune.models.loading import load

    return load(given["model"], backend, Path(given["adapter"]) if given["adapter"] else None).model


def _mlx_lms_model(task: Task, given: dict[str, Any]) -> tuple[Any, Any]:
    from mlx_lm import load
    from mlx_lm.utils import load_tokenizer

    if given["model"] is None:
        model, tokenizer = _random_model(given["setting"]), load_tokenizer(Path(task.tokenizer))
    else:
        model, tokenizer = load(given["folder"], adapter_path=given["adapter"])[:2]
    tokenizer.eos_token_ids = set(_stops(task, given))
    return model, tokenizer


def _random_model(setting: str) -> Any:
    """Random weights of the setting's shape, the same in every process."""
    import mlx.core as mx
    from engines.mlx_model import base
    from settings import SETTINGS

    mx.random.seed(0)
    model = base(SETTINGS[setting])
    mx.eval(model.parameters())
    return model


def _stops(task: Task, given: dict[str, Any]) -> list[int]:
    """The stop tokens; none for random weights, whose answers are as long as their limit."""
    return task.stops if given["model"] is not None or given["follow"] else []


def _without(tokens: list[int], stops: list[int]) -> list[int]:
    return [token for token in tokens if token not in stops]


def main() -> None:
    """Load the engine named on the command line and serve it until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = json.loads(sys.stdin.readline())
    task = Task.read(Path(given["task"])).of(given["name"])
    engine = {"calltune": calltune, "mlx_lm": mlx_lm, "manual": manual}[sys.argv[1]](task, given)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for _ in sys.stdin:
        started = time.perf_counter()
        found = engine()
        seconds = time.perf_counter() - started
        answers.write(json.dumps({"seconds": seconds, "answers": found}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
