from typing import Any

import mlx.core as mx
import pytest

from calltune.data.batching import COARSE
from calltune.training.cuda.decoder import fuse
from calltune.training.step import StepOptions

from support import tiny
from support.plain import (
    CAPPED,
    GEMMA,
    LLAMA,
    Run,
    assert_equal,
    attach,
    batches,
    difference,
    keep_frozen,
    plain_gradients,
    quantised,
    random_rows,
    shape_of,
    start,
    summed,
)
from support.reference_kernels import ReferenceKernels

ROWS = random_rows()
MAX_LENGTH = 160
QWEN = LLAMA | {"model_type": "qwen3", "head_dim": 16, "max_position_embeddings": 512}
GROUPED = LLAMA | {"num_attention_heads": 4, "num_key_value_heads": 2}
ROPES = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = LLAMA | {"rope_scaling": ROPES | {"original_max_position_embeddings": 64}}
CONFIGS = {
    "gemma": GEMMA,
    "llama": LLAMA,
    "untied": LLAMA | {"tie_word_embeddings": False},
    "grouped": GROUPED,
    "qwen": QWEN,
    "scaled": SCALED,
}


def fused(model: Any, layers: int = 1, options: StepOptions | None = None) -> Run:
    """Training of the model with its upper layers fused."""
    run = start(model, shape_of(num_layers=layers), ROWS, options, COARSE)
    run.step.split_model.fused = fuse(run.step.split_model, ReferenceKernels(), MAX_LENGTH)
    return run


def fresh(config: dict[str, Any], **changes: Any) -> Any:
    model = tiny.make_model(config)
    attach(model, shape_of(**changes))
    return model


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recompute", [None, 0], ids=["kept", "recomputed"])
def test_loss_and_gradients_equal_plain_ones(name: str, layers: int, recompute: Any) -> None:
    model = fresh(CONFIGS[name], num_layers=layers)
    plain = plain_gradients(model, ROWS)
    run = fused(model, layers, StepOptions(kept_positions=recompute))
    assert run.step.split_model.fused is not None
    assert_equal(run, summed(run), plain)
    losses = [run.step.loss(run.trained.weights, batch) for batch in batches(run)]
    assert difference(sum(losses, mx.array(0.0)), plain.loss) < 2e-6


def test_recomputed_layers_take_less_memory() -> None:
    peaks = []
    for kept in (None, 300, 0):
        model = fresh(GEMMA | {"num_hidden_layers": 8}, num_layers=8)
        run = fused(model, 8, StepOptions(kept_positions=kept))
        (batch,) = batches(run, 1)
        mx.eval(batch[:4])
        mx.synchronize()
        before = mx.get_active_memory()
        # What is queued holds memory too: let MLX wait.
        limit = mx.set_memory_limit(before)
        mx.reset_peak_memory()
        mx.eval(run.step.gradients(run.trained.weights, batch))
        peaks.append(mx.get_peak_memory() - before)
        mx.set_memory_limit(limit)
    assert peaks[2] < 0.5 * peaks[0]
    assert peaks[2] < peaks[1] < 0.9 * peaks[0]


@pytest.mark.parametrize("name", ["gemma", "llama"])
def test_they_equal_plain_ones_with_quantised_weights_and_a_cache(name: str) -> None:
    model = quantised(CONFIGS[name])
    attach(model, shape_of())
    plain = plain_gradients(model, ROWS)
    run = fused(model)
    keep_frozen(run, ROWS)
    assert run.step.split_model.fused is not None
    assert_equal(run, summed(run), plain)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("name", ["gemma", "llama"])
def test_a_step_is_gradients_and_an_update(name: str, clip: float) -> None:
    run = fused(fresh(CONFIGS[name], num_layers=2), 2, StepOptions(clip=clip))
    before = run.trained
    for batch in batches(run, 2):
        ours = run.step.step(before, batch, 50.0, 1e-3)
        theirs = run.step.update(before, run.step.gradients(before.weights, batch), 50.0, 1e-3)
        for key, weight in theirs.trained.weights.items():
            # Adam turns rounding into direction where a gradient is next to nothing.
            assert mx.abs(ours.trained.weights[key] - weight).max() < 2e-5
            for moment, value in theirs.trained.optimizer[key].items():
                assert difference(ours.trained.optimizer[key][moment], value) < 1e-5
        assert ours.trained.optimizer.keys() == theirs.trained.optimizer.keys()
        assert ours.trained.optimizer["step"].item() == theirs.trained.optimizer["step"].item()
        before = theirs.trained


def test_both_layers_of_gemma_have_their_own_window() -> None:
    run = fused(fresh(GEMMA, num_layers=2), 2)
    assert [layer.heads.window for layer in run.step.split_model.fused.layers] == [64, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gemma2", **CAPPED, "attn_logit_softcapping": 0.5},
        {"rope_traditional": True, **LLAMA},
    ],
    ids=["capped attention", "other rotation"],
)
def test_layers_of_another_kind_are_left_as_they_are(change: dict[str, Any]) -> None:
    model = fresh(change)
    plain = plain_gradients(model, ROWS)
    run = fused(model)
    assert run.step.split_model.fused is None
    assert_equal(run, summed(run), plain)


def test_lora_on_some_projections_is_left_as_it_is() -> None:
    shape = shape_of(modules=("q_proj", "v_proj"))
    model = tiny.make_model(LLAMA)
    attach(model, shape)
    run = start(model, shape, ROWS)
    assert fuse(run.step.split_model, ReferenceKernels(), MAX_LENGTH) is None
