"""Write the BFCL rows as tokens to .bench/rows-FORMAT.npz, through calltune's own stages.

python benchmarks/make_rows.py --format chatml --model pip:smollm2-135m
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rows import Row, describe_rows, write_rows


def main() -> None:
    """Load, prepare and tokenize; write one file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", default="gemma", help="prompt family, as prep's --format")
    parser.add_argument("--model", default="pip:gemma3-270m", help="whose tokenizer to use")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where to write")
    given = parser.parse_args()
    splits = bfcl_splits(given.format, given.model)
    path = given.folder / f"rows-{given.format}.npz"
    write_rows(path, splits["train"], splits["valid"])
    for name, rows in splits.items():
        print(f"{name}: {describe_rows(rows)}")
    print(f"Wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


def bfcl_splits(format_name: str, model: str) -> dict[str, list[Row]]:
    """The train and valid rows of every BFCL category that calltune loads."""
    from calltune.commands import load, prep

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        loaded = load.run(load.LoadOptions(dataset="pip:bfcl-eval", output_dir=data / "training"))
        options = prep.PrepOptions(input_file=loaded, output_dir=data, format=format_name)
        folder = prep.run(options)
        return {name: _tokens(folder / f"{name}.jsonl", model) for name in ("train", "valid")}


def random_splits(vocabulary: int, seed: int) -> dict[str, list[Row]]:
    """A few rows of random tokens, for models that are only there to be run."""
    rng = np.random.default_rng(seed)

    def rows(count: int) -> list[Row]:
        lengths = rng.integers(20, 120, count).tolist()
        tokens = [rng.integers(1, vocabulary, length).astype(np.int32) for length in lengths]
        return [Row(row, len(row) * 7 // 8) for row in tokens]

    return {"train": rows(60), "valid": rows(9)}


def _tokens(path: Path, model: str) -> list[Row]:
    from transformers import AutoTokenizer

    from calltune.data.batching import tokenize
    from calltune.data.prepared import read_prepared
    from calltune.models.resolve import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    rows = tokenize(read_prepared(path), tokenizer).rows
    return [Row(np.array(row.tokens, np.int32), row.completion_start) for row in rows]


if __name__ == "__main__":
    main()
