"""A small real model, tuned in less than a minute to call two tools."""

import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from calltune.data.prepared import prepare_example
from calltune.files import write_rows
from calltune.formats import FORMATS
from calltune.tools import from_openai
from calltune.types import Example, Message, ToolCall, exact_answer

MODEL = "pip:smollm2-135m"
TAUGHT = (
    "Athens Berlin Cairo Dublin Essen Fargo Geneva Havana Lisbon Madrid Naples Oslo Paris Quito "
    "Rome Sofia Tokyo Turin Vienna Warsaw"
)


def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"{len(city) + 15} degrees and sunny in {city}"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def written_tool(name: str, description: str, **types: str) -> dict[str, Any]:
    """A tool as OpenAI's API takes it, all arguments required."""
    properties = {argument: {"type": kind} for argument, kind in types.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


TOOLS = [
    written_tool("weather", "Get the weather in a city.", city="string"),
    written_tool("add", "Add two numbers.", a="integer", b="integer"),
]


class Asked(NamedTuple):
    """A question that is taught, the call that it asks for, and what that gives."""

    question: str
    call: ToolCall
    result: str


def asked() -> list[Asked]:
    """The questions, of the first tool and then of the second."""
    chosen = random.Random(1)
    found = [
        Asked(f"What is the weather in {city}?", ToolCall("weather", {"city": city}), weather(city))
        for city in TAUGHT.split()
    ]
    for _ in range(20):
        a, b = chosen.randrange(2, 900), chosen.randrange(2, 900)
        call = ToolCall("add", {"a": a, "b": b})
        found.append(Asked(f"What is {a} plus {b}?", call, str(add(a, b))))
    return found


def examples() -> list[Example]:
    """The questions with their calls; what is said after the results is the base model's."""
    tools = from_openai(TOOLS).tools
    return [
        Example(
            f"{number}",
            (Message("user", each.question),),
            tools,
            (exact_answer(each.call),),
            "tests",
        )
        for number, each in enumerate(asked())
    ]


def train_adapter(folder: Path) -> Path:
    """The adapter, trained in `folder` unless it is there: a finished run is not done again.

    In a process of its own, with both cores; other test processes wait until it is there.
    """
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _train(folder)


def _train(folder: Path) -> Path:
    rows = [prepare_example(each, FORMATS["chatml"], True).to_json() for each in examples()]
    for name in ("train", "valid"):
        write_rows(folder / "data" / f"{name}.jsonl", rows if name == "train" else rows[:4])
    options = {
        "model": MODEL,
        "data": folder / "data",
        "adapter-path": folder / "adapter",
        "iters": 12,
        "batch-size": 4,
        "learning-rate": 2e-4,
        "num-layers": 16,
        "val-batches": 1,
        "steps-per-eval": 12,
    }
    command = [sys.executable, "-m", "calltune", "train", "--no-grad-checkpoint"]
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {name: os.environ[name] for name in os.environ if name != "OPENBLAS_NUM_THREADS"}
    subprocess.run([*command, *flags], check=True, capture_output=True, env=environment)
    return folder / "adapter"
