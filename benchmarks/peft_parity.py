"""Whether PEFT's model with an exported adapter computes what calltune's does.

By hand, with a second Python that has torch, transformers and peft (they are no dependencies):

    uv run --extra cpu python benchmarks/peft_parity.py --adapter adapters/smollm2 \
      --data data/smollm2/training --torch-python /path/to/python --rows 4

Prints, as JSON, the greatest difference between the logits of the two, in float32 on the CPU, over
every position of the test rows. For comparison it also prints the same for the base models alone,
and how much the adapter changes the logits.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

THEIRS = """
import sys
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, folder = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.inference_mode():
    for file in folder.glob("*.tokens.npy"):
        tokens = torch.tensor(np.load(file))[None]
        np.save(str(file).replace("tokens", "theirs"), model(tokens).logits[0].numpy())
        with model.disable_adapter():
            np.save(str(file).replace("tokens", "bare"), model(tokens).logits[0].numpy())
"""


def main() -> None:
    """Compute the logits of both, and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--rows", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = _ours(options, folder)
        command = [options.torch_python, "-c", THEIRS, str(base), str(folder / "peft"), scratch]
        subprocess.run(command, check=True)
        print(json.dumps(_compared(folder)))


def _ours(options: argparse.Namespace, folder: Path) -> Path:
    """Export the adapter and write the logits of calltune's model; the base in float32."""
    from calltune.models.backend import choose

    backend = choose("cpu")

    import mlx.core as mx

    from calltune.commands.export import ExportOptions, run
    from calltune.data.prepared import read_prepared
    from calltune.models.loading import base_model_of, load
    from calltune.models.resolve import resolve

    peft = folder / "peft"
    run(ExportOptions(to="peft", adapter_path=options.adapter, output=peft, device="cpu"))
    reference = base_model_of(options.adapter)
    rows = read_prepared(options.data / "test.jsonl")[: options.rows]
    for kind, adapter in (("ours", options.adapter), ("base", None)):
        loaded = load(reference, backend, adapter)
        for index, row in enumerate(rows):
            tokens = loaded.tokenizer.encode(row.text, add_special_tokens=False)
            logits: Any = loaded.model(mx.array([tokens]))[0]
            np.save(folder / f"{index}.tokens.npy", np.array(tokens))
            np.save(folder / f"{index}.{kind}.npy", np.array(logits))
    return resolve(reference, dense=True)


def _compared(folder: Path) -> dict[str, float]:
    """The differences with the adapter, without it as a control, and what the adapter changes."""
    files = sorted(folder.glob("*.tokens.npy"))
    sides = {
        kind: [np.load(str(file).replace("tokens", kind)) for file in files]
        for kind in ("ours", "theirs", "base", "bare")
    }

    def farthest(one: str, other: str) -> float:
        pairs = zip(sides[one], sides[other], strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    pairs = list(zip(sides["ours"], sides["theirs"], strict=True))
    return {
        "positions": sum(len(ours) for ours, _ in pairs),
        "same_choice": sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs),
        "greatest_difference": farthest("ours", "theirs"),
        "greatest_difference_without_adapter": farthest("base", "bare"),
        "greatest_change_by_the_adapter": farthest("theirs", "bare"),
    }


if __name__ == "__main__":
    main()
