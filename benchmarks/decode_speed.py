"""How fast calltune answers test rows, beside mlx_lm's batches and the manual's one by one.

python benchmarks/decode_speed.py --data data/smollm2/training --adapter adapters/smollm2

The engines answer the same prompts, greedily, in turns. Each engine's line goes to
benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
from engine_process import PLANS, environment, four_bits
from turns import alternating

from calltune.batches import PreparedRow, prompt_tokens, read_prepared
from calltune.formats import FORMATS

HERE = Path(__file__).parent
ENGINES = {"calltune": "calltune", "mlx_lm": "mlx_lm", "manual": "manual", "manual_stock": "manual"}
"""By name, and what decode_worker.py calls each."""
STOCK = "manual_stock"
"""It answers one row, the one of median length: more would take hours on a CPU."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be answered."""

    prompts: list[list[int]]
    stops: list[int]
    dense: Path

    def of(self, engine: str) -> list[list[int]]:
        """The prompts that an engine gets."""
        if engine != STOCK:
            return self.prompts
        return [sorted(self.prompts, key=len)[len(self.prompts) // 2]]


class Worker:
    """One engine's process."""

    def __init__(self, name: str, task: Task, given: argparse.Namespace) -> None:
        self.name = name
        plan = PLANS["mlx_lm_stock" if name == STOCK else "mlx_lm"]
        cache = Path(".bench")
        cache.mkdir(exist_ok=True)
        folder = task.dense if name != STOCK else four_bits(task.dense, cache)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "decode_worker.py"), ENGINES[name]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(plan, is_on_cpu=given.cpu),
        )
        self._send(
            {
                "model": given.model,
                "folder": str(folder),
                "adapter": given.adapter or "",
                "stops": task.stops,
                "max_tokens": given.max_tokens,
                "batch_size": given.batch_size,
            }
        )
        self._receive()

    def answer(self, prompts: list[list[int]]) -> dict[str, Any]:
        """Seconds, and the tokens of each answer."""
        self._send(prompts)
        return self._receive()

    def stop(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _send(self, values: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(values) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Let the engines answer in turns, write their lines and print a table."""
    given = _parser().parse_args(arguments)
    names = given.engine.split(",")
    if unknown := sorted(set(names) - set(ENGINES)):
        sys.exit(f"No engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    task = _task(given)
    workers = [Worker(name, task, given) for name in names]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for index, worker in alternating(workers, given.rounds):
        if worker.name == STOCK and found[STOCK]:
            continue
        print(f"round {index + 1}: {worker.name}", flush=True)
        found[worker.name].append(worker.answer(task.of(worker.name)))
    for worker in workers:
        worker.stop()
    expected = dict(zip(map(str, task.prompts), found[names[0]][0]["answers"], strict=True))
    lines = [_line(name, task.of(name), found[name], expected, given) for name in names]
    for line in lines:
        report.append(given.results, line)
    _print(lines)


def _line(
    name: str,
    prompts: list[list[int]],
    rounds: list[dict[str, Any]],
    expected: dict[str, list[int]],
    given: argparse.Namespace,
) -> dict[str, Any]:
    written = [sum(map(len, each["answers"])) for each in rounds]
    answers = zip(prompts, rounds[0]["answers"], strict=True)
    same = sum(expected[str(prompt)] == answer for prompt, answer in answers)
    speeds = [count / each["seconds"] for count, each in zip(written, rounds, strict=True)]
    return {
        "benchmark": "decode_speed",
        "engine": name,
        "model": given.model,
        "adapter": bool(given.adapter),
        "rows": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "generated_tokens": written[0],
        "batch_size": given.batch_size,
        "max_tokens": given.max_tokens,
        "rounds": len(rounds),
        "tokens_per_second": report.spread(speeds),
        "seconds_per_answer": report.spread([e["seconds"] / len(prompts) for e in rounds]),
        "same_answers": same,
    } | report.surroundings(given.commit)


def _print(lines: list[dict[str, Any]]) -> None:
    first = lines[0]["seconds_per_answer"]["median"]
    print(f"{'engine':14}{'rows':>6}{'s an answer':>14}{'ratio':>8}{'tokens/s':>11}{'same':>6}")
    for line in lines:
        seconds = line["seconds_per_answer"]["median"]
        speed = line["tokens_per_second"]["median"]
        print(
            f"{line['engine']:14}{line['rows']:6}{seconds:14.2f}{seconds / first:8.1f}"
            f"{speed:11.1f}{line['same_answers']:6}"
        )


def _task(given: argparse.Namespace) -> Task:
    from mlx_lm.utils import load_tokenizer

    from calltune.models.resolve import resolve

    rows: list[PreparedRow] = read_prepared(given.data / "test.jsonl")[: given.rows]
    dense = resolve(given.model, dense=given.cpu)
    tokenizer = load_tokenizer(dense)
    family = FORMATS[rows[0].format]
    stops = {tokenizer.encode(stop, add_special_tokens=False)[0] for stop in family.stops}
    return Task(
        [prompt_tokens(tokenizer, row.prompt, family) for row in rows],
        sorted(stops | set(tokenizer.eos_token_ids)),
        dense,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="calltune,mlx_lm,manual", help=", ".join(ENGINES))
    parser.add_argument("--model", default="pip:smollm2-135m")
    parser.add_argument("--adapter", help="folder of an adapter, so that answers end")
    parser.add_argument("--data", type=Path, required=True, help="folder with test.jsonl")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--gpu", dest="cpu", action="store_false", help="where there is one")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--commit", help="to record where the code is no git checkout")
    return parser


if __name__ == "__main__":
    main()
