"""Answer test rows with llama.cpp from a GGUF file, and judge the calls as `calltune test` does.

llama.cpp is what `xllamacpp` carries, which is no dependency of calltune:

    uv run --extra cpu --with xllamacpp python benchmarks/gguf_calls.py MODEL.gguf \
        --data data/training --beside data/results/finetuned_model_test_results.json

Prompts go in as text and answers end at the file's own end tokens, so its tokenizer, BOS and end
tokens are tested as well. The last line of output is JSON: how many answers are right, and with
--beside how many answers and prompt lengths equal those of `calltune test`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from calltune.data.prepared import PreparedRow, read_prepared
from calltune.evaluation.judge import judge
from calltune.evaluation.prompts import tools_of
from calltune.files import read_json, read_rows, write_rows
from calltune.formats import FORMATS


def main() -> None:
    """Answer, judge and print."""
    options = read_options()
    rows = read_prepared(options.data / "test.jsonl")
    others = by_id(read_json(options.beside)["results"]) if options.beside else {}
    rows = [row for row in rows if not others or row.id in others][: options.num_examples]
    prompts = by_id(read_rows(options.prompts)) if options.prompts else {}
    server = open_server(options.gguf, options.threads)
    started = time.perf_counter()
    records = []
    for row in rows:
        prompt = prompts[row.id]["prompt"] if prompts else row.prompt
        records.append(answer(server, row, prompt, options.max_tokens))
        print(json.dumps(records[-1], ensure_ascii=False), flush=True)
    if options.records:
        write_rows(options.records, records)
    line = {"gguf": options.gguf.name, **summary(records, others)}
    print(json.dumps(line | {"seconds": round(time.perf_counter() - started)}))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="where prep wrote test.jsonl")
    parser.add_argument("--beside", type=Path, help="results of `calltune test` on the same rows")
    parser.add_argument("--prompts", type=Path, help='other prompts, as lines of {"id", "prompt"}')
    parser.add_argument("--records", type=Path, help="where to write the answers")
    parser.add_argument("--num-examples", type=int, default=None)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1, help="llama.cpp's threads spin: few")
    return parser.parse_args()


def by_id(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The lines by the ids of their rows."""
    return {line["id"]: line for line in lines}


def open_server(gguf: Path, threads: int) -> Any:
    """llama.cpp with the model loaded, on the CPU."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.warmup = 4096, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def answer(server: Any, row: PreparedRow, prompt: str, max_tokens: int) -> dict[str, Any]:
    """One row's greedy answer and its judgement. llama.cpp adds BOS itself."""
    family = FORMATS[row.format]
    request = {
        "prompt": prompt.removeprefix(family.bos),
        "n_predict": max_tokens,
        "temperature": 0.0,
        "cache_prompt": False,
    }
    reply = server.handle_completions(request)
    choice = reply["choices"][0]
    finish = "length" if choice["finish_reason"] == "length" else "stop"
    found = judge(family.parse(choice["text"]), row.answers or (), tools_of(row), finish)
    return {
        "id": row.id,
        "text": choice["text"],
        "finish": finish,
        "prompt_tokens": reply["usage"]["prompt_tokens"],
        "is_exact": found.is_exact,
        "has_right_names": found.has_right_names,
        "is_parsed": found.is_parsed,
    }


def summary(records: list[dict[str, Any]], others: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Counts over all rows, and how many are equal in the results beside."""
    names = ("is_exact", "has_right_names", "is_parsed")
    counts = {"rows": len(records)}
    counts |= {name: sum(record[name] for record in records) for name in names}
    if others:
        pairs = [(record, others[record["id"]]) for record in records]
        exact = [(own["is_exact"], other["verdict"]["is_exact"]) for own, other in pairs]
        counts |= {
            "beside_is_exact": sum(other for _, other in exact),
            "same_verdict": sum(own == other for own, other in exact),
        }
        for key in ("text", "prompt_tokens"):
            counts[f"same_{key}"] = sum(own[key] == other[key] for own, other in pairs)
    return counts


if __name__ == "__main__":
    main()
