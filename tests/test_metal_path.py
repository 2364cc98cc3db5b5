"""The path that Metal takes through calltune, on this CPU: train, resume, test, serve, export.

A backend that says "metal" is passed in while MLX computes on the CPU: steps are compiled, weights
stay quantised and in half precision, MLX's functions are its own, and no CUDA kernel runs.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from starlette.testclient import TestClient

from calltune.commands.prep import PrepOptions
from calltune.commands.prep import run as prep
from calltune.data.batching import Splits, TokenRow, read_prepared, tokenize
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.run import EvaluationRun, evaluate
from calltune.exporting.targets import WRITERS, open_tuned
from calltune.files import write_json
from calltune.models import cpu_math, patches
from calltune.models.backend import Backend
from calltune.models.loading import load
from calltune.serving.build import build_service
from calltune.serving.options import ServeOptions
from calltune.training import checkpoint, saving
from calltune.training.dry_run import measure
from calltune.training.options import TrainOptions
from calltune.training.run import Run, build_run

from support import tiny
from support.commands_needed import COMPILER, needs
from support.running import ASK, PAINT

METAL = Backend("metal", "as stored", None, "", "a test")

# On a CPU MLX compiles its fused operations with g++.
pytestmark = needs(COMPILER)


@pytest.fixture(scope="module", autouse=True)
def plain_mlx() -> Iterator[None]:
    """MLX's own functions, whatever ran before in this process; afterwards as before."""
    had_patches = cpu_math.has_cpu_patches()
    cpu_math.uninstall_cpu_patches()
    yield
    assert all(patches.current(name) is own for name, own in patches.ORIGINALS.items())
    if had_patches:
        cpu_math.install_cpu_patches()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantised model in bfloat16, and prepared rows."""
    place = tmp_path_factory.mktemp("metal")
    quantise(tiny.write_gemma(place / "model"))
    tiny.write_rows(place / "rows", 20)
    prep(PrepOptions(input_file=place / "rows", output_dir=place / "data"))
    return place


def quantise(folder: Path) -> None:
    """Store the model in bfloat16 with matrices of 4 bits, as models for Metal come."""
    model, config = load_model(folder)
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, group_size=32, bits=4)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    write_json(folder / "config.json", config | {"quantization": {"group_size": 32, "bits": 4}})


def token_rows(folder: Path, tokenizer: Any, split: str) -> list[TokenRow]:
    return tokenize(
        read_prepared(folder / "data" / "training" / f"{split}.jsonl"), tokenizer, 2048
    ).rows


def build(folder: Path, adapter: Path) -> Run:
    options = TrainOptions(
        model=str(folder / "model"),
        data=folder / "data" / "training",
        adapter_path=adapter,
        iters=4,
        save_every=2,
        batch_size=2,
        num_layers=1,
        rank=2,
        learning_rate=1e-3,
        steps_per_eval=4,
    )
    loaded = load(options.model, METAL, compute=options.compute)
    rows = Splits(*(token_rows(folder, loaded.tokenizer, split) for split in ("train", "valid")))
    return build_run(loaded, rows, options, measure(METAL))


def train(folder: Path, adapter: Path) -> Run:
    run = build(folder, adapter)
    saving.train(run, {"test": "metal"}, {"model": str(folder / "model"), "format": "gemma"})
    return run


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    train(folder, folder / "adapter")
    return folder / "adapter"


def test_weights_stay_quantised_and_steps_are_compiled(folder: Path, tmp_path: Path) -> None:
    run = build(folder, tmp_path / "adapter")
    quantised = [m for _, m in run.model.named_modules() if isinstance(m, nn.QuantizedLinear)]
    assert quantised
    assert {value.dtype for _, value in tree_flatten(run.model.layers[0].parameters())} == {
        mx.uint32,
        mx.bfloat16,
    }
    assert run.step.split_model.fused is None
    assert run.plan.step.compiled and not run.plan.step.use_numpy


def test_training_lowers_the_loss_and_writes_an_adapter(adapter: Path) -> None:
    lines = [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [line["val_loss"] for line in lines if "val_loss" in line]
    assert last < first
    assert (adapter / "adapters.safetensors").is_file()


class Killed(BaseException):
    """Stands for a kill, which leaves the files as they are."""


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint, "save", save_and_die)
        train(folder, tmp_path / "killed")
    assert not (tmp_path / "killed" / "adapters.safetensors").exists()
    train(folder, tmp_path / "killed")
    ours: Any = mx.load(str(tmp_path / "killed" / "adapters.safetensors"))
    theirs: Any = mx.load(str(adapter / "adapters.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in theirs)


def test_constrained_answers_parse_and_are_judged(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    options = AnswerOptions(num_examples=2, max_tokens=60, constrain=True)
    test_file, results_file = folder / "data" / "training" / "test.jsonl", tmp_path / "results.json"
    run = EvaluationRun(str(folder / "model"), adapter, test_file, results_file, options)
    found = evaluate(run, METAL, lambda *_: None)
    assert len(found.records) == 2
    assert all(record.judgement.is_parsed for record in found.records if record.finish == "stop")
    assert "Metal, as stored" in json.loads(results_file.read_text())["identity"]["backend"]


def test_a_server_answers_with_a_call(folder: Path, adapter: Path) -> None:
    options = ServeOptions(
        model=str(folder / "model"),
        adapter_path=(f"tuned={adapter}",),
        format="gemma",
        batch_size=2,
        max_tokens=200,
        max_context=2000,
    )
    server = build_service(options, METAL, n_grammar_processes=1)
    question = {
        "model": "tuned",
        "messages": ASK,
        "tools": [PAINT],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    with TestClient(server.app, base_url="http://127.0.0.1") as client:
        reply = client.post("/v1/chat/completions", json=question)
    assert reply.status_code == 200, reply.text
    message = reply.json()["choices"][0]["message"]
    assert {call["function"]["name"] for call in message["tool_calls"]} == {"paint"}


def test_an_exported_model_stays_quantised(folder: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "fused").mkdir()
    tuned = open_tuned(adapter, str(folder / "model"), "gemma", tmp_path / "scratch")
    WRITERS["mlx"](tuned, "auto", tmp_path / "fused")
    fused = load(str(tmp_path / "fused"), METAL).model
    assert any(isinstance(module, nn.QuantizedLinear) for _, module in fused.named_modules())
    logits = fused(mx.array([[7, 8, 9]]))
    assert logits.dtype == mx.bfloat16 and bool(mx.isfinite(logits).all())
