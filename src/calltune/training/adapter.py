"""Adapters: attached to a model, resumed from, and saved as mlx_lm saves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from calltune.errors import ModelNotFound, OptionError
from calltune.files import atomic_write, read_json, write_json
from calltune.models.loading import CONFIG, WEIGHTS
from calltune.training.packed_lora import PackedLoRA, pack_layer
from calltune.types import Json

Kind = Literal["lora", "rslora", "dora", "full"]
Weights = dict[str, mx.array]


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Which weights are trained, in the terms of mlx_lm's adapter_config.json."""

    fine_tune_type: Kind
    num_layers: int
    """Layers with an adapter, counted from the top of the model; -1 for all."""
    rank: int
    scale: float
    """Multiplies the low-rank product; rsLoRA divides it by the root of the rank
    (Kalajdzievski, https://arxiv.org/abs/2312.03732)."""
    dropout: float
    modules: tuple[str, ...] = ()
    """Names of the linear layers that get LoRA, such as q_proj; all of them where it is empty."""

    @property
    def multiplier(self) -> float:
        """The factor of the low-rank product."""
        return self.scale / self.rank**0.5 if self.fine_tune_type == "rslora" else self.scale

    def to_json(self, keys: Sequence[str] | None = None) -> dict[str, Json]:
        """The part of adapter_config.json that mlx_lm needs to load the adapter.

        `keys` are the names of the adapted linear layers within a decoder layer, None for all. An
        rsLoRA adapter is a LoRA adapter with another scale.
        """
        lora: dict[str, Json] = {
            "rank": self.rank,
            "scale": self.multiplier,
            "dropout": self.dropout,
        }
        if keys is not None:
            lora["keys"] = list(keys)
        kind = "lora" if self.fine_tune_type == "rslora" else self.fine_tune_type
        return {
            "fine_tune_type": kind,
            "num_layers": self.num_layers,
            "lora_parameters": None if kind == "full" else lora,
        }

    def n_trained(self, n_layers: int) -> int:
        """How many layers of a model with `n_layers` are trained.

        Raises:
            OptionError: the model has too few layers.
        """
        if self.num_layers > n_layers:
            raise OptionError(
                f"--num-layers is {self.num_layers}, but the model has {n_layers} layers; "
                "give that many or fewer, or -1 for all"
            )
        return n_layers if self.num_layers == -1 else self.num_layers

    def n_frozen(self, n_layers: int) -> int:
        """How many layers lie below the trained ones."""
        return n_layers - self.n_trained(n_layers)


def check_trainable(shape: AdapterShape, model_folder: Path, reference: str) -> None:
    """Refuse to train quantized weights themselves: 4 bits cannot hold what a step adds.

    The files in `model_folder` decide: weights that were dequantized for training would not fit
    them. `reference` is the name of the model in the error.

    Raises:
        OptionError: full fine-tuning was asked for, and the model's files are quantized.
    """
    if shape.fine_tune_type != "full":
        return
    config = read_json(model_folder / "config.json")
    if any(config.get(key) for key in ("quantization", "quantization_config")):
        raise OptionError(
            f"--fine-tune-type full needs a model that is not quantized, and {reference} is; "
            f"make one with calltune model {reference} --dense, or use --fine-tune-type lora"
        )


def attach(model: Any, shape: AdapterShape, seed: int) -> dict[str, Json]:
    """Freeze the model and attach trainable weights, in place; the shape as JSON.

    The JSON is the part of adapter_config.json that mlx_lm needs. `seed` decides the initial
    weights.

    Raises:
        OptionError: the model has too few layers, or lacks one of the modules.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    layers = model.layers[shape.n_frozen(len(model.layers)) :]
    mx.random.seed(seed)
    model.freeze()
    config = shape.to_json(_keys(layers, shape.modules))
    if shape.fine_tune_type == "full":
        for layer in layers:
            layer.unfreeze()
        return config
    linear_to_lora_layers(
        model,
        shape.num_layers,
        config["lora_parameters"],
        use_dora=shape.fine_tune_type == "dora",
    )
    return config


def resume(model: Any, weights_file: Path) -> None:
    """Load trained weights into a model that has its adapter; call it before `pack_layers`.

    Raises:
        ModelNotFound: there is no such file, it is broken, or it was not made for this model
            and shape.
    """
    if not weights_file.is_file():
        raise ModelNotFound(
            f"No adapter file {weights_file} to resume from; give the path of an "
            f"{WEIGHTS} that train wrote"
        )
    try:
        trained = mx.load(str(weights_file))
    except RuntimeError as error:
        raise ModelNotFound(f"{weights_file} is cut short or no safetensors file") from error
    assert isinstance(trained, dict)
    wanted = {name: v.shape for name, v in tree_flatten(model.trainable_parameters())}
    found = {name: v.shape for name, v in trained.items()}
    if any(name.startswith("base_model.") for name in found):
        raise ModelNotFound(
            f"{weights_file} is an adapter of Hugging Face's PEFT; convert it with calltune export "
            "--to adapter, and start from the adapters.safetensors that this writes"
        )
    if found != wanted:
        raise ModelNotFound(
            f"{weights_file} was trained for another model, --num-layers or rank "
            f"({_misfit(found, wanted)}); resume with the options in its {CONFIG}, or start "
            "without --resume-adapter-file"
        )
    model.load_weights(list(trained.items()), strict=False)
    mx.eval(model.trainable_parameters())


def pack_layers(model: Any) -> None:
    """Let LoRA layers that share their input be computed as one product, in place."""
    names = {id(module): name for name, module in model.named_modules()}
    for layer in model.layers:
        pack_layer(layer, names[id(layer)])


def trainable(model: Any) -> Weights:
    """The trainable weights, by their names in this model."""
    return dict(tree_flatten(model.trainable_parameters()))


def exported(model: Any, weights: Weights) -> Weights:
    """Trained weights, or their gradients, by the names that mlx_lm gives them.

    `weights` has the names that `trainable` gives once the layers are packed.
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLoRA)}
    result: Weights = {}
    for name, module in packed.items():
        result |= module.unpack(weights[f"{name}.a"], weights[f"{name}.b"])
    inside = {f"{name}.{part}" for name in packed for part in "ab"}
    return result | {name: value for name, value in weights.items() if name not in inside}


def save(
    folder: Path,
    weights: Weights,
    config: dict[str, Json],
    number: int | None = None,
    keep: int = 1,
) -> None:
    """Write trained weights, named as by `exported`, and their config to an adapter's folder.

    With `number`, a step, the weights go to a numbered checkpoint as well, as in mlx_lm; the last
    `keep` of those up to this one stay.

    Raises:
        OutputError: a file cannot be written.
    """
    if number is not None:
        _save_weights(folder / f"{number:07d}_{WEIGHTS}", weights)
        numbered = sorted(folder.glob(f"[0-9]*_{WEIGHTS}"))
        # Those of a longer run before this one do not count.
        for old in numbered[: numbered.index(folder / f"{number:07d}_{WEIGHTS}") + 1][:-keep]:
            old.unlink()
    _save_weights(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, config)


def _save_weights(path: Path, weights: Weights) -> None:
    with atomic_write(path) as file:
        mx.save_safetensors(file, dict(sorted(weights.items())))


def _misfit(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    """The first difference between the weights of a file and those of a run, by their shapes."""
    for name, shape in found.items():
        if name not in wanted:
            return f"it has {name}, which this run does not train"
        if shape != wanted[name]:
            return f"{name} is {list(shape)}, and here {list(wanted[name])}"
    missing = next(name for name in wanted if name not in found)
    return f"it lacks {missing}"


def _keys(layers: Sequence[Any], modules: Sequence[str]) -> list[str] | None:
    """The names within a layer of the linear modules called like one of `modules`."""
    if not modules:
        return None
    linear = {
        name
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    }
    short = {name.rsplit(".", 1)[-1] for name in linear}
    if unknown := [name for name in modules if name not in short]:
        raise OptionError(
            f"The model's layers have no {unknown[0]} to adapt; they have "
            f"{', '.join(sorted(short))}"
        )
    return sorted(name for name in linear if name.rsplit(".", 1)[-1] in modules)
