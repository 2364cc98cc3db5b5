"""The options of a training run: what `calltune train` takes, and what the run is built from.

Names that `mlx_lm lora` has mean here what they mean there. Nothing here imports MLX, so that
`--help` stays quick.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calltune.errors import OptionError
from calltune.models.options import (
    AdapterOption,
    DataOption,
    DeviceOption,
    ModelOption,
    check_minimums,
)

LARGE_BATCH = 8
"""From this many rows on, a GPU has more to do than the host that queues its work (dev/LOG.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(DeviceOption, AdapterOption, DataOption, ModelOption):
    """Options of `calltune train`: those of `mlx_lm lora`, with the manual's values, and more."""

    train: bool = True
    """Accepted for mlx_lm's sake: this command always trains."""
    iters: int = 500
    """Number of training steps."""
    epochs: int | None = None
    """Passes over the training rows, instead of --iters."""
    val_batches: int = 20
    """Validation rows, in batches of --batch-size; always the same rows; -1 uses all of them."""
    learning_rate: float = 1e-4
    """Adam's learning rate, the peak of the schedule."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up; linear and cosine decay to 0."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises from 0."""
    batch_size: int = 2
    """Rows in a step, those of all processes together."""
    grad_accumulation_steps: int = 1
    """Steps whose gradients make one update; every trained token counts the same."""
    max_grad_norm: float = 0.0
    """Gradients with a larger norm are scaled down to it; 0 turns clipping off."""
    num_layers: int = 8
    """Layers to train, counted from the top; -1 for all."""
    fine_tune_type: Literal["lora", "rslora", "dora", "full"] = "lora"
    """What is trained: a kind of adapter, or the layers' own weights."""
    rank: int = 8
    """LoRA rank."""
    scale: float = 20.0
    """LoRA scale, as in mlx_lm; rslora divides it by the square root of the rank."""
    dropout: float = 0.0
    """LoRA dropout."""
    modules: tuple[str, ...] = ()
    """Linear layers that get LoRA, such as q_proj v_proj; all of them where none is named."""
    max_seq_length: int = 2048
    """Longest row, in tokens. Longer rows are left out and counted, never truncated."""
    prefix_cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where the frozen layers' output for each row is cached; disk keeps it for later runs."""
    compute: Literal["auto", "quantized", "dense"] = "auto"
    """Whether a quantized model's weights are dequantized while training; auto does so on CPU and
    CUDA, where dense products are faster. The adapter is for the same model either way."""
    grad_checkpoint: bool = True
    """Recompute the activations of large batches in the backward pass: less memory, more time. Not
    done on the CPU, where it would take more memory."""
    steps_per_report: int = 10
    """Steps between reports of the training loss."""
    steps_per_eval: int = 200
    """Steps between validations; there is one before the first step and one after the last."""
    patience: int = 0
    """Stop after this many validations without a new best; 0 trains to the end."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """Number of numbered checkpoints to keep, the newest ones."""
    resume_adapter_file: Path | None = None
    """Start from the weights in this adapters.safetensors."""
    seed: int = 42
    """Random seed of the adapter's initial weights and of the order of the rows."""
    report_to: tuple[str, ...] = ()
    """Send metrics to tensorboard, wandb or trackio as well, through their own libraries."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_minimums(
            self,
            iters=1,
            batch_size=1,
            save_every=1,
            rank=1,
            max_seq_length=2,
            steps_per_report=1,
            steps_per_eval=1,
            grad_accumulation_steps=1,
            warmup_steps=0,
            max_grad_norm=0,
            patience=0,
            keep_checkpoints=1,
            epochs=1,
            val_batches=-1,
            dropout=0,
        )
        if self.num_layers == 0 or self.num_layers < -1:
            raise OptionError(f"--num-layers is {self.num_layers}; give 1 or more, or -1 for all")
        if not 0 < self.learning_rate < float("inf"):
            raise OptionError(f"--learning-rate is {self.learning_rate}; it must be above 0")
        if self.scale == 0 or not abs(self.scale) < float("inf"):
            raise OptionError(f"--scale is {self.scale}, with which LoRA trains nothing; try 20")
        if self.dropout >= 1:
            raise OptionError(f"--dropout is {self.dropout}; it must be below 1")
