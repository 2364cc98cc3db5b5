"""Training as a user calls it: bad input, small data, full disks, early ends, what is written."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from calltune.commands.train import TrainOptions, run
from calltune.errors import (
    CalltuneError,
    DataError,
    ModelNotFound,
    OptionError,
    OutputError,
)
from calltune.files import file_digest, write_rows
from calltune.formats import FORMATS
from calltune.models.cpu_math import uninstall_cpu_patches
from calltune.training.logging import Diverged
from calltune.training.loop import Loop
from calltune.training.schedule import LearningRate

from support import tiny

ADAPTER = Path("adapter")
OLD = Path(tiny.__file__).parent / "old"
WEIGHTS = "adapters.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that each test works in; it has rows to train on."""
    monkeypatch.chdir(tmp_path)
    prepare(6)
    yield tmp_path
    uninstall_cpu_patches()


def prepare(n_train: int, n_valid: int = 2, longest: int = 0) -> None:
    """Rows as prep writes them; the first one has so many more tokens."""
    for name, count in (("train", n_train), ("valid", n_valid)):
        rows = [row(f"{name}-{i}", "x" * longest if i == 0 else "") for i in range(count)]
        write_rows(Path("data") / f"{name}.jsonl", rows)


def row(row_id: str, more: str) -> dict[str, Any]:
    prompt = f"<bos><start_of_turn>user\nAdd {row_id}.{more}<end_of_turn>\n"
    text = f"{prompt}call {row_id}<end_of_turn>"
    return {"id": row_id, "text": text, "completion_start": len(prompt), "format": "gemma"}


def train(model: Path, adapter: Path = ADAPTER, **changes: Any) -> Path:
    wanted: dict[str, Any] = {"iters": 4, "save_every": 2, "num_layers": 1, "rank": 2}
    wanted |= {"learning_rate": 1e-2, "steps_per_report": 1, "device": "cpu"}
    wanted |= {"model": str(model), "data": Path("data"), "adapter_path": adapter}
    return run(TrainOptions(**(wanted | changes)))


def metrics(adapter: Path = ADAPTER) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]


def steps(key: str, adapter: Path = ADAPTER) -> list[int]:
    return [line["step"] for line in metrics(adapter) if key in line]


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def assert_one_line(error: CalltuneError, *parts: str) -> None:
    assert len(str(error).splitlines()) == 1
    assert all(part in str(error) for part in parts), error


def test_the_rows_of_these_tests_are_of_a_format_that_there_is() -> None:
    assert "gemma" in FORMATS


def test_a_run_leaves_what_its_docstring_says(tiny_gemma: Path) -> None:
    train(tiny_gemma)
    assert listed(ADAPTER) == [
        "0000002_adapters.safetensors",
        "0000004_adapters.safetensors",
        "adapter_config.json",
        WEIGHTS,
        "best",
        "metrics.jsonl",
        "run.json",
        "state",
    ]
    assert listed(ADAPTER / "state") == ["0000004"]
    assert file_digest(ADAPTER / WEIGHTS) == file_digest(ADAPTER / "0000004_adapters.safetensors")


def test_rows_that_are_too_long_are_left_out_and_counted(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(6, longest=200)
    train(tiny_gemma, max_seq_length=100, epochs=1)
    out = capsys.readouterr().out
    assert "Left out 1 of 6 train rows, longer than 100 tokens (first: train-0)" in out
    assert "Left out 1 of 2 valid rows, longer than 100 tokens (first: valid-0)" in out
    assert "Training on 5 rows" in out and "1 rows to validate on" in out
    assert steps("train_loss") == [1, 2, 3]


def test_rows_that_are_all_too_long_are_refused(tiny_gemma: Path) -> None:
    with pytest.raises(DataError) as caught:
        train(tiny_gemma, max_seq_length=10)
    assert_one_line(caught.value, "longer than 10 tokens", "raise --max-seq-length")
    assert not ADAPTER.exists()


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_training_split_is_refused(tiny_gemma: Path, content: bytes) -> None:
    Path("data/train.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        train(tiny_gemma)
    assert_one_line(caught.value, "data/train.jsonl has no rows", "run prep again")


@pytest.mark.parametrize("content", [None, b"", b"\n"])
def test_without_validation_rows_there_is_no_validation(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    Path("data/valid.jsonl").unlink()
    if content is not None:
        Path("data/valid.jsonl").write_bytes(content)
    train(tiny_gemma)
    assert "0 rows to validate on" in capsys.readouterr().out
    assert steps("val_loss") == [] and not (ADAPTER / "best").exists()
    assert (ADAPTER / WEIGHTS).exists()


@pytest.mark.parametrize("val_batches", [0, 20])
def test_patience_without_validation_says_that_it_does_nothing(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str], val_batches: int
) -> None:
    train(tiny_gemma, patience=2, val_batches=val_batches)
    assert ("--patience has no effect" in capsys.readouterr().out) is (val_batches == 0)


def test_one_row_is_enough(tiny_gemma: Path) -> None:
    prepare(1, 1)
    train(tiny_gemma, batch_size=1)
    losses = [line["train_loss"] for line in metrics() if "train_loss" in line]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_a_batch_may_be_larger_than_the_data(tiny_gemma: Path) -> None:
    train(tiny_gemma, batch_size=64, iters=2)
    n_tokens = metrics()[-2]["tokens"]
    train(tiny_gemma, Path("other"), batch_size=6, iters=2)
    assert metrics(Path("other"))[-2]["tokens"] == n_tokens


def test_epochs_are_passes_over_the_rows(tiny_gemma: Path) -> None:
    train(tiny_gemma, epochs=3, batch_size=4)
    assert steps("train_loss") == [1, 2, 3, 4, 5, 6]
    n_tokens = [line["tokens"] for line in metrics() if "tokens" in line]
    assert n_tokens[5] == 3 * n_tokens[1] == 1.5 * n_tokens[3]


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [0.005, 0.01, 0.01, 0.01, 0.01, 0.01]),
        ("linear", [0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025]),
    ],
)
def test_the_learning_rate_of_each_step_is_recorded(
    tiny_gemma: Path, kind: str, rates: list[float]
) -> None:
    train(tiny_gemma, iters=6, warmup_steps=2, lr_schedule=kind)
    recorded = [line["learning_rate"] for line in metrics() if "learning_rate" in line]
    assert recorded == pytest.approx(rates)


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_numbered_checkpoints_are_kept(tiny_gemma: Path, keep: int) -> None:
    ADAPTER.mkdir()
    (ADAPTER / "0000900_adapters.safetensors").write_bytes(b"of a longer run before")
    train(tiny_gemma, iters=6, keep_checkpoints=keep)
    numbered = [name[:7] for name in listed(ADAPTER) if name.endswith(f"_{WEIGHTS}")]
    assert numbered == [*["0000002", "0000004", "0000006"][-keep:], "0000900"]


def test_numbered_checkpoints_are_written_where_batches_are_accumulated(tiny_gemma: Path) -> None:
    train(tiny_gemma, iters=9, save_every=4, grad_accumulation_steps=3)
    numbered = [name[:7] for name in listed(ADAPTER) if name.endswith(f"_{WEIGHTS}")]
    assert numbered == ["0000006", "0000009"]


def test_training_ends_early_and_best_holds_the_best_and_loads_in_mlx_lm(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm import load

    losses = iter([9.0, 5.0, 4.0, 4.5, 4.2])
    monkeypatch.setattr(Loop, "validate", lambda *_: next(losses))
    train(tiny_gemma, iters=20, steps_per_eval=2, patience=2)
    assert steps("train_loss")[-1] == 8 and steps("val_loss") == [0, 2, 4, 6, 8]
    best, at_four = ADAPTER / "best", ADAPTER / f"0000004_{WEIGHTS}"
    assert file_digest(best / WEIGHTS) == file_digest(at_four)
    assert file_digest(ADAPTER / WEIGHTS) != file_digest(at_four)
    tuned, _ = load(str(tiny_gemma), adapter_path=str(best))
    loaded = dict(tree_flatten(tuned.trainable_parameters()))
    saved: Any = mx.load(str(best / WEIGHTS))
    assert all(mx.array_equal(loaded[name], value) for name, value in saved.items())


def test_an_adapter_that_training_makes_worse_stays_the_best(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_gemma)
    begun = file_digest(ADAPTER / WEIGHTS)
    losses = iter([0.126, 0.178, 0.2])
    monkeypatch.setattr(Loop, "validate", lambda *_: next(losses))
    # Into the same folder, whose best adapter was of a run with other options.
    train(tiny_gemma, resume_adapter_file=ADAPTER / WEIGHTS, steps_per_eval=2, seed=5)
    assert file_digest(ADAPTER / "best" / WEIGHTS) == begun != file_digest(ADAPTER / WEIGHTS)
    out = capsys.readouterr().out
    assert "No validation was better than the one before the first step, 0.126: best/" in out


def test_a_run_that_patience_ends_says_so(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([9.0, 4.0, 4.5, 4.2])
    monkeypatch.setattr(Loop, "validate", lambda *_: next(losses))
    train(tiny_gemma, iters=20, steps_per_eval=1, patience=2)
    out = capsys.readouterr().out
    assert "stopped before step 20: the last 2 validations brought no new best (--patience)" in out
    assert "Lowest validation loss 4.000 after step 1: those weights are in best/" in out
    assert [line for line in metrics() if "stopped" in line] == [{"step": 3, "stopped": "patience"}]
    # Its folder is whole, so nothing is trained or told again.
    (ADAPTER / "run.json").unlink()
    train(tiny_gemma, iters=20, steps_per_eval=1, patience=2)
    assert [line["step"] for line in metrics() if "stopped" in line] == [3]


def test_a_run_that_patience_would_end_at_its_last_step_says_nothing(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([9.0, 4.0, 4.5, 4.2])
    monkeypatch.setattr(Loop, "validate", lambda *_: next(losses))
    train(tiny_gemma, iters=3, steps_per_eval=1, patience=2)
    assert "stopped" not in capsys.readouterr().out
    assert not any("stopped" in line for line in metrics())


def test_the_same_command_again_keeps_the_adapter_of_whatever_options(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that are lists were never found equal to what run.json had of them."""
    for _ in range(2):
        train(tiny_gemma, modules=("q_proj", "v_proj"))
    assert "was trained with these options" in capsys.readouterr().out


def test_other_options_start_anew_and_say_so(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_gemma)
    train(tiny_gemma, iters=2, learning_rate=1e-3)
    out = capsys.readouterr().out
    assert "0000004 was made with other options or rows (iters 4, now 2; learning_rate " in out
    assert "Resuming" not in out
    assert steps("train_loss") == [1, 2] and listed(ADAPTER / "state") == ["0000002"]


def test_an_adapter_of_another_rank_is_refused(tiny_gemma: Path) -> None:
    train(tiny_gemma)
    with pytest.raises(ModelNotFound) as caught:
        train(tiny_gemma, Path("other"), rank=4, resume_adapter_file=ADAPTER / WEIGHTS)
    assert_one_line(caught.value, "another model, --num-layers or rank")
    assert not Path("other").exists()


def test_an_adapter_file_that_is_cut_short_is_refused(tiny_gemma: Path) -> None:
    train(tiny_gemma)
    cut(ADAPTER / WEIGHTS)
    with pytest.raises(ModelNotFound) as caught:
        train(tiny_gemma, Path("other"), resume_adapter_file=ADAPTER / WEIGHTS)
    assert_one_line(caught.value, "cut short")


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_gemma)
    whole = file_digest(ADAPTER / WEIGHTS)
    (ADAPTER / "run.json").unlink()
    cut(ADAPTER / "state" / "0000004" / "weights.safetensors")
    train(tiny_gemma)
    out = capsys.readouterr().out
    assert "0000004 is damaged" in out and "Resuming" not in out
    assert steps("train_loss") == [1, 2, 3, 4] and file_digest(ADAPTER / WEIGHTS) == whole


def test_a_checkpoint_of_another_version_is_named_and_training_starts_anew(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_gemma)
    whole = file_digest(ADAPTER / WEIGHTS)
    (ADAPTER / "run.json").unlink()
    for file in (ADAPTER / "state").glob("*/state.json"):
        state = json.loads(file.read_text())
        file.write_text(json.dumps(state | {"layout": 1}))
    train(tiny_gemma)
    out = capsys.readouterr().out
    assert "another version" in out and "Resuming" not in out
    assert file_digest(ADAPTER / WEIGHTS) == whole


@pytest.mark.parametrize("gone", [WEIGHTS, f"0000004_{WEIGHTS}", "best/" + WEIGHTS])
def test_a_run_that_was_killed_before_its_last_files_writes_them(
    tiny_gemma: Path, capsys: pytest.CaptureFixture[str], gone: str
) -> None:
    train(tiny_gemma)
    before = file_digest(ADAPTER / gone)
    (ADAPTER / "run.json").unlink()
    if not gone.startswith("best"):
        (ADAPTER / gone).unlink()
    train(tiny_gemma)
    assert "Resuming after step 4" in capsys.readouterr().out
    assert file_digest(ADAPTER / gone) == before and (ADAPTER / "run.json").exists()


def test_what_a_kill_left_half_written_is_cleared_away(tiny_gemma: Path) -> None:
    (ADAPTER / "state" / ".0000002.abc").mkdir(parents=True)
    (ADAPTER / f".{WEIGHTS}.77.partial").write_bytes(b"half")
    (ADAPTER / ".gitattributes").write_text("")
    (ADAPTER / ".git").mkdir()
    train(tiny_gemma)
    hidden = sorted(path.name for path in ADAPTER.rglob(".*"))
    assert hidden == [".git", ".gitattributes"]


@pytest.mark.parametrize("call", ["fsync", "replace", "rename"])
def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on_exactly(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    train(tiny_gemma, Path("whole"), iters=6)
    real, state = getattr(os, call), ADAPTER / "state"

    def full(*arguments: Any) -> Any:
        if any(state.glob(".0000004.*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OutputError) as caught:
            train(tiny_gemma, iters=6)
    assert_one_line(caught.value, "No space left", "0000004", "run again")
    assert sorted(path.name for path in state.glob("*")) == ["0000002"]
    assert file_digest(ADAPTER / WEIGHTS) == file_digest(ADAPTER / f"0000002_{WEIGHTS}")
    train(tiny_gemma, iters=6)
    assert file_digest(ADAPTER / WEIGHTS) == file_digest(Path("whole") / WEIGHTS)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LearningRate, "at", lambda _, update: 1e-2 if update < 4 else 1e38)
    with pytest.raises(Diverged) as caught:
        train(tiny_gemma, iters=8, save_every=2)
    assert_one_line(caught.value, "lower --learning-rate", "the last checkpoint is kept")
    saved: Any = mx.load(str(ADAPTER / WEIGHTS))
    assert all(mx.isfinite(value).all() for value in saved.values())
    assert listed(ADAPTER / "state") == ["0000004"] and not (ADAPTER / "run.json").exists()


def test_a_rate_that_is_too_high_from_the_start_writes_no_adapter(tiny_gemma: Path) -> None:
    with pytest.raises(Diverged):
        train(tiny_gemma, learning_rate=1e30)
    assert not (ADAPTER / WEIGHTS).exists() and not (ADAPTER / "state").exists()


def test_a_run_that_the_version_before_left_is_resumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options and rows are known again by what it wrote of them (tests/support/old)."""
    shutil.copytree(OLD / "interrupted_run", ADAPTER)
    train(tiny.write_gemma(Path("gemma")))
    assert "Resuming after step 2" in capsys.readouterr().out
    assert steps("train_loss") == [1, 2, 3, 4]
    recorded = json.loads((ADAPTER / "run.json").read_text())
    state = json.loads((OLD / "interrupted_run" / "state" / "0000002" / "state.json").read_text())
    assert {name: recorded[name] for name in state["made_from"]} == state["made_from"]


def write_quantised(folder: Path, like: Path) -> Path:
    """A model folder whose weights are in 4 bits."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((like / name).read_bytes())
    config = tiny.GEMMA_CONFIG | {"quantization": {"group_size": 32, "bits": 4}}
    model = tiny.make_model(tiny.GEMMA_CONFIG)
    # Heads of 16 cannot be quantised in groups of 32.
    nn.quantize(model, 32, 4, class_predicate=lambda _, m: is_wide(m))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def is_wide(module: Any) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0


@pytest.mark.parametrize("compute", ["dense", "quantized"])
def test_full_fine_tuning_of_a_quantised_model_is_refused(
    tiny_gemma: Path, folder: Path, compute: str
) -> None:
    model = write_quantised(folder / "four-bit", tiny_gemma)
    with pytest.raises(OptionError) as caught:
        train(model, fine_tune_type="full", compute=compute)
    assert_one_line(caught.value, "--dense", "--fine-tune-type lora", "four-bit")
    train(model, fine_tune_type="lora", compute=compute, iters=1)
    train(tiny_gemma, Path("full"), fine_tune_type="full", learning_rate=1e-4, iters=1)


def test_an_unknown_tracker_is_refused(tiny_gemma: Path) -> None:
    with pytest.raises(OptionError) as caught:
        train(tiny_gemma, report_to=("mlflow",))
    assert_one_line(caught.value, "No tracker 'mlflow'", "tensorboard")
