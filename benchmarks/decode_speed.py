"""Decoding speed of calltune on test rows, against mlx_lm's batches and the manual's scripts.

python benchmarks/decode_speed.py --data data/smollm2/training --adapter adapters/smollm2

The engines answer the same prompts greedily, in interleaved runs. Each engine's line goes to
benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decode_task import STOCK, Task, task_of
from engine_process import PLANS, environment, four_bits
from interleave import interleaved

import report

HERE = Path(__file__).parent
CACHE = Path(".bench")
CONSTRAINED = "calltune_held"
ENGINES = {
    "calltune": "calltune",
    CONSTRAINED: "calltune",
    "mlx_lm": "mlx_lm",
    "manual": "manual",
    STOCK: "manual",
}
"""The engine of decode_worker.py, by the name on the command line and in results."""


class Worker:
    """One engine's process."""

    def __init__(self, name: str, path: Path, given: argparse.Namespace) -> None:
        self.name = name
        plan = PLANS["mlx_lm_stock" if name == STOCK else "mlx_lm"]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "decode_worker.py"), ENGINES[name]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(plan, is_on_cpu=given.cpu),
        )
        self._send(
            {
                "name": name,
                "task": str(path),
                "constrained": name == CONSTRAINED,
                "model": None if given.random_weights else given.model,
                "setting": given.random_weights,
                "folder": None if given.random_weights else _folder(name, given),
                "adapter": given.adapter,
                "batch_size": given.batch_size,
                "follow": given.follow,
                "cpu": given.cpu,
            }
        )
        self._receive()

    def answer(self) -> dict[str, Any]:
        """One run: its seconds, and the tokens of each answer."""
        self._send("answer")
        return self._receive()

    def stop(self) -> None:
        """End the process."""
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
    """Run the engines in turns, append their results and print a table."""
    given = _parser().parse_args(arguments)
    names = given.engine.split(",")
    if unknown := sorted(set(names) - set(ENGINES)):
        sys.exit(f"No engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    path = given.task or CACHE / "decode-task.json"
    if given.data is not None:
        task_of(given.data, given.model, given.rows, given.max_tokens).write(path)
    if given.only_task:
        return
    task = Task.read(path)
    workers = [Worker(name, path, given) for name in names]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for index, worker in interleaved(workers, given.rounds):
        rounds = {STOCK: 1, "manual": given.manual_rounds}.get(worker.name)
        if len(found[worker.name]) == rounds:
            continue
        print(f"round {index + 1}: {worker.name}", flush=True)
        found[worker.name].append(worker.answer())
    for worker in workers:
        worker.stop()
    expected = dict(zip(map(str, task.prompts), found[names[0]][0]["answers"], strict=True))
    lines = [_line(name, task.of(name).prompts, found[name], expected, given) for name in names]
    for line in lines:
        report.append(given.results, line)
    _print(lines)


def _folder(name: str, given: argparse.Namespace) -> str:
    """The model as mlx_lm loads it: float32 on a CPU; for the stock engine in 4 bits."""
    from calltune.models.resolve import resolve

    dense = resolve(given.model, dense=given.cpu)
    CACHE.mkdir(exist_ok=True)
    return str(four_bits(dense, CACHE) if name == STOCK else dense)


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
        "model": f"random weights, {given.random_weights}" if given.random_weights else given.model,
        "adapter": bool(given.adapter),
        "rows": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "generated_tokens": written[0],
        "batch_size": given.batch_size,
        "follows_right_answers": given.follow,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", default="calltune,mlx_lm,manual", help=", ".join(ENGINES))
    add("--model", default="pip:smollm2-135m")
    add("--adapter", help="folder of an adapter, so that answers end")
    add("--data", type=Path, help="folder with test.jsonl")
    add("--task", type=Path, help="the file that --data becomes, or that is taken without it")
    add("--only-task", action="store_true", help="write --task, and answer nothing")
    add("--random-weights", choices=("gpu", "smoke"), help="of a setting of settings.py")
    add("--follow", action="store_true", help="make calltune's engines write the right answers")
    add("--rows", type=int, default=200)
    add("--rounds", type=int, default=2)
    add("--manual-rounds", type=int, help="fewer for the manual's engine, where it takes long")
    add("--max-tokens", type=int, help="unless given, answers are cut where right ones end")
    add("--batch-size", type=int, help="unless given, each engine's own")
    add("--gpu", dest="cpu", action="store_false", help="where there is one")
    add("--results", type=Path, default=HERE / "results.jsonl")
    add("--commit", help="to record where the code is no git checkout")
    return parser


if __name__ == "__main__":
    main()
