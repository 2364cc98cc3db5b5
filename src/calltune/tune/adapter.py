"""Adapters: put on a model, and written as mlx_lm writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from mlx.utils import tree_flatten

from calltune.calls import Json
from calltune.errors import ModelNotFound, OptionError
from calltune.jsonl import replacing, write_json
from calltune.models.load import CONFIG, WEIGHTS


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Which weights are trained, in mlx_lm's terms."""

    fine_tune_type: Literal["lora", "dora", "full"]
    num_layers: int
    """Counted from the top of the model; -1 is all."""
    rank: int
    scale: float
    dropout: float

    def to_json(self) -> dict[str, Json]:
        """The part of adapter_config.json that mlx_lm needs to load the adapter."""
        lora = {"rank": self.rank, "scale": self.scale, "dropout": self.dropout}
        return {
            "fine_tune_type": self.fine_tune_type,
            "num_layers": self.num_layers,
            "lora_parameters": None if self.fine_tune_type == "full" else lora,
        }


def attach(model: Any, shape: AdapterShape, seed: int) -> None:
    """Freeze the model and put trainable weights of this shape on it.

    Raises:
        OptionError: the model has fewer layers than are to be trained.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    if shape.num_layers > len(model.layers):
        raise OptionError(
            f"--num-layers is {shape.num_layers}, but the model has {len(model.layers)} layers; "
            "give that many or fewer, or -1 for all"
        )
    mx.random.seed(seed)
    model.freeze()
    if shape.fine_tune_type == "full":
        for layer in model.layers[-max(shape.num_layers, 0) :]:
            layer.unfreeze()
        return
    linear_to_lora_layers(
        model,
        shape.num_layers,
        shape.to_json()["lora_parameters"],
        use_dora=shape.fine_tune_type == "dora",
    )


def resume(model: Any, weights_file: Path) -> None:
    """Start from the trained weights in `weights_file`.

    Raises:
        ModelNotFound: there is no such file, or it was not made for this model and shape.
    """
    if not weights_file.is_file():
        raise ModelNotFound(
            f"No adapter file {weights_file} to resume from; give the path of an "
            f"{WEIGHTS} that train wrote"
        )
    trained = mx.load(str(weights_file))
    assert isinstance(trained, dict)
    wanted = dict(tree_flatten(model.trainable_parameters()))
    if {k: v.shape for k, v in trained.items()} != {k: v.shape for k, v in wanted.items()}:
        raise ModelNotFound(
            f"{weights_file} was trained for another model, --num-layers or rank; resume with "
            f"the options in its {CONFIG}, or start without --resume-adapter-file"
        )
    model.load_weights(list(trained.items()), strict=False)
    mx.eval(model.trainable_parameters())


def save(model: Any, folder: Path, config: dict[str, Json], iteration: int | None = None) -> Path:
    """Write the trained weights and their config; the file of the weights.

    With `iteration` the weights go to a numbered checkpoint as well, as mlx_lm does.
    """
    weights = dict(tree_flatten(model.trainable_parameters()))
    if iteration is not None:
        _save_weights(folder / f"{iteration:07d}_{WEIGHTS}", weights)
    _save_weights(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, config)
    return folder / WEIGHTS


@contextmanager
def checkpointed(model: Any, enabled: bool) -> Iterator[None]:
    """Recompute activations in the backward pass while the block runs.

    mlx_lm changes the layer's class for this; it is changed back afterwards, since a
    checkpointed layer cannot be decoded with.
    """
    layer_class = type(model.layers[0])
    plain = layer_class.__call__
    if enabled:
        from mlx_lm.tuner.trainer import grad_checkpoint

        grad_checkpoint(model.layers[0])
    try:
        yield
    finally:
        layer_class.__call__ = plain


def _save_weights(path: Path, weights: dict[str, mx.array]) -> None:
    with replacing(path) as file:
        mx.save_safetensors(file, weights)
