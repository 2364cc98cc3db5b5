"""Real lists of tools: read, compiled into grammars, and one question of each answered by `serve`.

python benchmarks/real_tools.py

MCP servers from npm are started and asked for their tools; OpenAPI documents come from packages.
The line goes to benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from serve_client import CHAT
from serve_engines import Server
from tool_lists import LISTS, ToolList, install

import report

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

MODEL = "pip:smollm2-135m"
FORMAT = "chatml"
READ_S = 60
"""How long an MCP server has to start and to list its tools."""
N_NOTES = 3
"""How many kinds of what was left out are shown in a row of the table."""


class Asked(NamedTuple):
    """The answer to a question, with the list's tools on offer and one call demanded."""

    seconds: float
    status: int
    calls: list[dict[str, Any]]
    note: str
    """The error, or what the server says that it did not enforce or offer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all lists; exit status 0 if each was read, compiled and its question answered."""
    given = _parsed(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = [each for each in LISTS if given.only is None or given.only in each.name]
    install(given.packages)
    rows = []
    adapter = given.adapter or _adapter(given.packages / "adapter")
    flags = ["--max-tokens", str(given.max_tokens), "--timeout", "600"]
    flags += ["--max-context", str(given.max_context), "--batch-size", "1"]
    server = Server("calltune", MODEL, adapter, given.packages / "serve.log", flags)
    try:
        server.wait_until_ready()
        compiler = _Compiler()
        for tools in chosen:
            rows.append(_tried(tools, given.packages, compiler, server))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(rows)} of {len(chosen)} lists")
    finally:
        server.stop()
    line = {"benchmark": "real_tools", "model": MODEL, "max_tokens": given.max_tokens}
    line |= {"max_context": given.max_context, "lists": rows}
    if given.results is not None:
        report.append(given.results, line | report.surroundings(given.commit))
    print(table(rows))
    return 0 if len(rows) == len(chosen) and all(is_well(row) for row in rows) else 1


def is_well(row: dict[str, Any]) -> bool:
    """Whether a list was read, all its grammars hold a call, and its question was answered."""
    return row["tools"] > 0 and not row["loose"] and row["status"] == 200 and row["valid"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    head = (
        "| list | tools | kB | read | notes | compiled | wholly held | left out | answered | call |"
    )
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|---|--:|---|"]
    for row in rows:
        left = [f"{what} {count}" for what, count in row["left_out"].items()]
        call = row["called"] or f"status {row['status']}"
        cells = (
            row["list"],
            f"{row['tools']:,}",
            f"{row['bytes'] / 1000:,.0f}",
            f"{row['read_s']:.1f} s",
            f"{row['notes']:,}",
            f"{row['compile_s']:.1f} s",
            f"{row['held']:,}",
            "; ".join(left[:N_NOTES]) + (" …" if len(left) > N_NOTES else ""),
            f"{row['answer_s']:.1f} s",
            call + ("" if row["valid"] else " ✗") + (f"; {row['note']}" if row["note"] else ""),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


class _Compiler:
    """Compiles each tool by itself with the tokens of the model that answers."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        from calltune.formats import FORMATS
        from calltune.generation.constraints import Constrainer
        from calltune.models.resolve import resolve

        tokenizer: Any = AutoTokenizer.from_pretrained(resolve(MODEL))
        stops = [tokenizer.eos_token_id]
        self._constrainer = Constrainer(tokenizer, FORMATS[FORMAT], stops, len(tokenizer))

    def compile(self, tools: Sequence[Any]) -> dict[str, Any]:
        """How many tools are wholly held, which not at all, and what is left out of how many."""
        left_out: Counter[str] = Counter()
        loose = []
        held = 0
        started = time.perf_counter()
        for tool in tools:
            constraint, unenforced = self._constrainer.constrain([tool])
            what = [each.partition(": ")[2] for each in unenforced]
            left_out.update(what)
            held += not what
            if constraint is None or any("whole schema" in w or "not called" in w for w in what):
                loose.append(tool.name)
        seconds = time.perf_counter() - started
        found = {"compile_s": round(seconds, 2), "held": held, "loose": loose}
        return found | {"left_out": dict(left_out.most_common())}


def _tried(tools: ToolList, packages: Path, compiler: _Compiler, server: Server) -> dict[str, Any]:
    from calltune.tools.sources import MCPOptions, read_source

    source = tools.find(packages)
    started = time.perf_counter()
    toolset = read_source(source, MCPOptions(READ_S))
    read_s = time.perf_counter() - started
    listed = toolset.to_json()
    asked = _ask(server, listed, tools.question)
    schemas = {tool.name: tool.parameters for tool in toolset.tools}
    row = {"list": tools.name, "tools": len(listed), "bytes": len(json.dumps(listed))}
    row |= {"read_s": round(read_s, 2), "notes": len(toolset.notes)}
    row |= compiler.compile(toolset.tools)
    row |= {"question": tools.question, "answer_s": round(asked.seconds, 2)}
    row |= {"status": asked.status, "note": asked.note}
    row |= {"called": ", ".join(call["name"] for call in asked.calls), "calls": asked.calls}
    return row | {"valid": bool(asked.calls) and all(_is_valid(c, schemas) for c in asked.calls)}


def _is_valid(call: dict[str, Any], schemas: dict[str, dict[str, Any]]) -> bool:
    from calltune.schemas.validate import satisfies

    try:
        arguments = json.loads(call["arguments"])
    except ValueError:
        return False
    return satisfies(arguments, schemas[call["name"]])


def _ask(server: Server, tools: list[Any], question: str) -> Asked:
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": question}],
        "tools": tools,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    started = time.perf_counter()
    response = httpx.post(server.url + CHAT, json=body, timeout=600)
    seconds = time.perf_counter() - started
    if response.status_code != 200:
        return Asked(seconds, response.status_code, [], response.json()["error"]["message"])
    (choice,) = response.json()["choices"]
    calls = [call["function"] for call in choice["message"].get("tool_calls") or []]
    said = []
    if left_out := response.headers.get("x-calltune-tools-left-out"):
        said.append(f"{left_out.partition(':')[0]} tools left out by the question")
    if unenforced := response.headers.get("x-calltune-unenforced"):
        said.append(f"checked afterwards: {unenforced}")
    if choice["finish_reason"] == "length":
        said.append("cut by the token limit")
    return Asked(seconds, 200, calls, "; ".join(said))


def _adapter(folder: Path) -> str:
    """The adapter of the tests, which was taught two other tools: its answers come to an end."""
    from support.tuned import train_adapter

    folder.mkdir(exist_ok=True)
    return str(train_adapter(folder))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", help="part of the names of the lists to try")
    add("--adapter", help="folder of an adapter of SmolLM2 135M; the tests' own unless given")
    add("--max-tokens", type=int, default=200, help="longest answer")
    add("--max-context", type=int, default=2048, help="longest prompt with its answer")
    add("--packages", type=Path, default=Path(".bench/real_tools").resolve())
    add("--results", type=Path, default=HERE / "results.jsonl")
    add("--no-record", dest="results", action="store_const", const=None)
    add("--commit", help="to record where the code is no git checkout")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
