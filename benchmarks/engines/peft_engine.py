"""Hugging Face PEFT: a model of transformers with LoRA, in a plain PyTorch loop.

A plain loop spares it what `transformers.Trainer` does between steps, and the adapter's weights
are kept in the model's precision, which spares the casts of PEFT's default: both favour it.
Batches are those of `Trainer`'s defaults: random rows, padded to the longest.
"""

import gc
import importlib.metadata
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from rows import Row, Rows
from settings import Setting
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig
from worker import Block, WorkerChannel

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTIONS = ("sdpa", "eager")
TRIAL_STEPS = 6
IGNORED = -100
"""The label that PyTorch's cross-entropy leaves out."""


class Batch(NamedTuple):
    """Token ids, mask and labels, each (B, L) int64; and how many of the ids are real."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    n_tokens: int


class Peft:
    """A PEFT model and its optimizer."""

    def __init__(self, rows: Rows, setting: Setting) -> None:
        torch.manual_seed(setting.seed)
        self._setting = setting
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = self._build()
        trained = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=setting.learning_rate, fused=True)
        self._valid = [self._collate(part) for part in _batched(rows.valid, setting.batch_size)]
        self._stream = self._batches(rows.train)
        self._trials = self._try_attentions()

    def steps(self, count: int) -> Block:
        """Train on the next `count` batches."""
        return self._train(islice(self._stream, count))

    def validate(self) -> Block:
        """The loss over all validation rows."""
        self._model.eval()
        started = self._now()
        with torch.inference_mode():
            losses = [self._loss(batch) for batch in self._valid]
        seconds = self._now() - started
        return _block(seconds, self._valid, float(torch.stack(losses).float().mean()))

    def peak_gb(self) -> float | None:
        """PyTorch's count of CUDA memory; it keeps none for the CPU."""
        return torch.cuda.max_memory_allocated() / 1e9 if self._device == "cuda" else None

    def release(self) -> None:
        """Empty PyTorch's cache."""
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def details(self) -> dict[str, Any]:
        """Device, versions and the attention that was taken."""
        versions = {name: importlib.metadata.version(name) for name in ("transformers", "peft")}
        name = torch.cuda.get_device_name() if self._device == "cuda" else "cpu"
        return {
            "device": name,
            "versions": versions | {"torch": torch.__version__},
            "attention": self._model.config._attn_implementation,
            "attention_trial_s": self._trials,
        }

    def _build(self) -> Any:
        setting, model = self._setting, self._base()
        n_layers = model.config.num_hidden_layers
        lora = LoraConfig(
            r=setting.rank,
            lora_alpha=int(setting.scale * setting.rank),
            lora_dropout=0.0,
            target_modules=list(PROJECTIONS),
            layers_to_transform=list(range(n_layers - setting.num_layers, n_layers)),
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, lora, autocast_adapter_dtype=False)

    def _base(self) -> Any:
        """The model without LoRA, on the device."""
        precision = getattr(torch, self._setting.precision)
        if self._setting.folder:
            model = AutoModelForCausalLM.from_pretrained(self._setting.folder, dtype=precision)
            model.config.use_cache = False
            return model.to(self._device)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(precision)
        with torch.device(self._device):
            model = Gemma3ForCausalLM(_config(self._setting))
        torch.set_default_dtype(usual)
        return model

    def _train(self, batches: Iterable[Batch]) -> Block:
        self._model.train()
        seen = []
        started = self._now()
        for batch in batches:
            self._loss(batch).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            seen.append(batch)
        return _block(self._now() - started, seen)

    def _try_attentions(self) -> dict[str, float]:
        """Seconds of a few steps with each attention on a GPU; the faster one stays."""
        if self._device != "cuda":
            return {}
        batches = list(islice(self._stream, TRIAL_STEPS))
        seconds = {}
        for name in ATTENTIONS:
            self._model.get_base_model().set_attn_implementation(name)
            self._train(batches)
            seconds[name] = self._train(batches).seconds
        fastest = min(seconds, key=seconds.__getitem__)
        self._model.get_base_model().set_attn_implementation(fastest)
        # The other attention's memory is not what training takes.
        torch.cuda.reset_peak_memory_stats()
        return seconds

    def _loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self._model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        return loss

    def _batches(self, rows: list[Row]) -> Iterator[Batch]:
        rng = np.random.default_rng(self._setting.seed)
        while True:
            shuffled = [rows[index] for index in rng.permutation(len(rows)).tolist()]
            for part in _batched(shuffled, self._setting.batch_size):
                yield self._collate(part)

    def _collate(self, rows: Sequence[Row]) -> Batch:
        width = max(len(row.tokens) for row in rows)
        ids = np.zeros((len(rows), width), np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, IGNORED)
        for index, row in enumerate(rows):
            end = len(row.tokens)
            ids[index, :end], mask[index, :end] = row.tokens, 1
            labels[index, row.completion_start : end] = row.tokens[row.completion_start :]
        tensors = [torch.from_numpy(array).to(self._device) for array in (ids, mask, labels)]
        return Batch(tensors[0], tensors[1], tensors[2], sum(len(row.tokens) for row in rows))

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def serve(rows: Rows, setting: Setting, channel: WorkerChannel) -> None:
    """Train until the channel is closed."""
    channel.serve(Peft(rows, setting))


def _config(setting: Setting) -> Gemma3TextConfig:
    shape = dict(setting.shape or {})
    pattern, n_layers = shape.pop("sliding_window_pattern"), shape["num_hidden_layers"]
    kinds = ["sliding_attention", "full_attention"]
    layers = [kinds[(layer + 1) % pattern == 0] for layer in range(n_layers)]
    return Gemma3TextConfig(**shape, layer_types=layers, use_cache=False)


def _batched(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """Whole batches only, as mlx_lm makes them."""
    for first in range(0, len(rows) - size + 1, size):
        yield rows[first : first + size]


def _block(seconds: float, seen: list[Batch], loss: float | None = None) -> Block:
    tokens = sum(batch.n_tokens for batch in seen)
    padded = sum(batch.input_ids.numel() for batch in seen)
    return Block(seconds, len(seen), tokens, padded, loss)
