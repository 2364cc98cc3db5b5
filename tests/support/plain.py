"""What training must equal, taken from the definition; and small models and rows to try it on."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from calltune.data.batching import FINE, Buckets, Splits, TokenRow
from calltune.models.loading import LoadedModel
from calltune.training import activation_cache, adapter
from calltune.training.adapter import AdapterShape, Kind
from calltune.training.dry_run import Machine
from calltune.training.options import TrainOptions
from calltune.training.run import Run, build_run
from calltune.training.step import (
    Gradients,
    StepBatch,
    StepOptions,
    add_gradients,
)

from support import tiny

Arrays = dict[str, mx.array]

GEMMA = tiny.GEMMA_CONFIG
LLAMA = tiny.LLAMA_CONFIG
UNTIED = LLAMA | {"tie_word_embeddings": False}
CAPPED = {
    "model_type": "gemma2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "vocab_size": 320,
    # Low enough to bend the tiny logits.
    "final_logit_softcapping": 0.5,
}
"""Gemma 2: it does something to its logits after the head."""
CONFIGS = {"gemma": GEMMA, "llama": LLAMA, "llama untied": UNTIED, "capped": CAPPED}

CPU = Machine("cpu", "float32", memory=10**10, free_disk=10**10)

ROUNDING = 5e-6
"""How far apart float32 results of the same sums may lie, as `difference` measures it: a BLAS adds
up in another order where a product has another shape."""
ROWS_OF = (20, 90, 131, 150, 40, 33, 77)
"""Some shorter and some longer than the sliding window of 64."""


def random_rows(lengths: tuple[int, ...] = ROWS_OF, seed: int = 0) -> list[TokenRow]:
    rng = np.random.default_rng(seed)
    return [
        TokenRow(str(i), tuple(rng.integers(6, 300, length).tolist()), length // 2)
        for i, length in enumerate(lengths)
    ]


def shape_of(kind: Kind = "lora", **changes: Any) -> AdapterShape:
    wanted = {"num_layers": 1, "rank": 4, "scale": 20.0, "dropout": 0.0}
    return AdapterShape(kind, **(wanted | changes))


def wide(config: dict[str, Any]) -> dict[str, Any]:
    """The config with sizes that can be quantised in groups of 32."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    return config | sizes | {"query_pre_attn_scalar": 32}


def quantised(config: dict[str, Any]) -> Any:
    model = tiny.make_model(wide(config))
    nn.quantize(model, group_size=32, bits=4)
    mx.eval(model.parameters())
    return model


def attach(model: Any, shape: AdapterShape) -> None:
    """Put an adapter on that changes what the model computes, as one does in mid-training."""
    adapter.attach(model, shape, seed=1)
    for number, (_, module) in enumerate(model.named_modules()):
        if "lora_b" in module:
            key = mx.random.key(number)
            module.lora_b = 0.02 * mx.random.normal(module.lora_b.shape, key=key)
    mx.eval(model.parameters())


def start(
    model: Any,
    shape: AdapterShape,
    rows: list[TokenRow],
    step_options: StepOptions | None = None,
    buckets: Buckets = FINE,
    batch_size: int = 3,
) -> Run:
    """Training as `calltune train` sets it up on a CPU, of a model that has its adapter."""
    options = TrainOptions(
        fine_tune_type=shape.fine_tune_type,
        num_layers=shape.num_layers,
        rank=shape.rank,
        scale=shape.scale,
        dropout=shape.dropout,
        modules=shape.modules,
        batch_size=batch_size,
        seed=3,
    )
    return build_run(
        LoadedModel(model, None, Path(), "tiny"),
        Splits(rows, []),
        options,
        CPU,
        has_adapter=True,
        step_options=step_options or StepOptions(),
        buckets=buckets,
    )


def keep_frozen(run: Run, rows: list[TokenRow], file: Path | None = None) -> None:
    """From now on the frozen layers' output is read from memory, or from `file`."""
    key = activation_cache.CacheKey("tiny", run.step.split_model.n_frozen, "float32")
    run.loader.cache = activation_cache.fill_cache(
        run.step.split_model, rows, lambda _: None, file, key
    )
    run.step.split_model.release_frozen()


def batches(run: Run, count: int | None = None) -> list[StepBatch]:
    """The first batches, those of an epoch where no count is given."""
    count = run.loader.steps_per_epoch if count is None else count
    return [batch.arrays for batch in run.loader.training(0, count)]


def summed(run: Run, given: list[StepBatch] | None = None) -> Gradients:
    """Loss and gradients summed over batches, those of an epoch where none are given."""
    total: Gradients | None = None
    for batch in batches(run) if given is None else given:
        total = add_gradients(total, run.step.gradients(run.trained.weights, batch))
    assert total is not None
    return total


def named(run: Run, stacks: Arrays) -> Arrays:
    """Weights or gradients of a run by mlx_lm's names."""
    return run.adapter_weights(stacks)


def n_trained(rows: list[TokenRow]) -> int:
    return sum(len(row.tokens) - row.completion_start for row in rows)


def plain_loss(model: Any, rows: list[TokenRow]) -> mx.array:
    """The summed loss: one row at a time, all logits, no padding, no cache."""
    total = mx.array(0.0)
    for row in rows:
        tokens = mx.array(row.tokens)
        logits = model(tokens[None, :-1])[0].astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, tokens[1:])
        total = total + losses[row.completion_start - 1 :].sum()
    return total


def plain_gradients(model: Any, rows: list[TokenRow]) -> Gradients:
    """The same with its gradients, by mlx_lm's names; before `start`, which packs the layers."""
    loss, gradients = nn.value_and_grad(model, lambda model: plain_loss(model, rows))(model)
    found = Gradients(loss, dict(tree_flatten(gradients)))
    mx.eval(found)
    return found


def difference(ours: mx.array, theirs: mx.array) -> float:
    """The largest difference, as a part of the largest number."""
    highest = float(mx.abs(theirs).max())
    return float(mx.abs(ours - theirs).max()) / max(highest, 1e-12)


def assert_equal(run: Run, ours: Gradients, plain: Gradients, tolerance: float = 2e-5) -> None:
    """To float32 rounding."""
    gradients = named(run, ours.of)
    assert gradients.keys() == plain.of.keys() and gradients
    assert abs(float(ours.loss) / float(plain.loss) - 1) < 2e-6
    assert max(float(mx.abs(gradient).max()) for gradient in plain.of.values()) > 1e-3
    off = {name: difference(gradients[name], plain.of[name]) for name in gradients}
    assert max(off.values()) < tolerance, off
