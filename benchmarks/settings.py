"""What is trained in a benchmark, and how: the same for every engine."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; sent to the engines as JSON."""

    name: str
    rows: str
    """The .npz file of token rows."""
    model: str | None = None
    """What calltune takes for --model; None builds one with random weights from `shape`."""
    shape: dict[str, int] | None = None
    """Gemma 3's sizes, under the names of its config.json."""
    precision: Literal["float32", "bfloat16"]
    batch_size: int = 2
    num_layers: int = 8
    """Layers with LoRA, counted from the top."""
    rank: int = 8
    scale: float = 20.0
    learning_rate: float = 1e-5
    max_seq_length: int = 2048
    """Rows longer than this many tokens are left out for every engine."""
    n_train: int | None = None
    """Rows to train on, the first ones that fit; None is all."""
    n_valid: int = 40
    """Rows to validate on; the manual's 20 batches of 2."""
    warm_up_steps: int
    steps: int
    """Steps in a round."""
    rounds: int
    validation_rounds: int
    seed: int = 42
    cut_to: int | None = None
    """Rows are cut to this many tokens: set for an engine that finishes no whole row."""
    folder: str = ""
    """Where `model` is, in the form that the engine wants; empty for random weights."""

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The setting that `to_json` wrote."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


GEMMA_3_1B = {
    "vocab_size": 262_144,
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}
"""google/gemma-3-1b-it's config.json."""
TINY = GEMMA_3_1B | {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 12,
    "intermediate_size": 128,
    "head_dim": 32,
    "sliding_window": 32,
}

SETTINGS = {
    "cpu": Setting(
        name="cpu",
        rows=".bench/rows-chatml.npz",
        model="pip:smollm2-135m",
        precision="float32",
        # Each of these rows costs seconds here; filling the cache is reported apart.
        n_train=80,
        n_valid=20,
        warm_up_steps=3,
        steps=10,
        rounds=5,
        validation_rounds=2,
    ),
    "gpu": Setting(
        name="gpu",
        rows=".bench/rows-gemma.npz",
        shape=GEMMA_3_1B,
        precision="bfloat16",
        n_train=800,
        n_valid=200,
        warm_up_steps=100,
        steps=60,
        rounds=5,
        validation_rounds=3,
    ),
    "smoke": Setting(
        name="smoke",
        rows=".bench/rows-smoke.npz",
        shape=TINY,
        precision="float32",
        n_valid=9,
        warm_up_steps=2,
        steps=5,
        rounds=3,
        validation_rounds=2,
    ),
}
