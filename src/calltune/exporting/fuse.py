"""An adapter fused into its base model, as a model folder, and how much survives quantization."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from calltune.evaluation.prompts import stop_tokens
from calltune.exporting.storage import Stored, floats_of, is_quantised, stored_as, weight_of
from calltune.files import read_json, write_json
from calltune.formats import Format
from calltune.models.loading import WEIGHTS, attach_adapter, load_stored
from calltune.types import Json

Bits = Literal["auto", "base", "4", "8", "dense", "float32"]
"""base: each layer as the base model has it; 4 and 8: no layer in more bits; dense: in the model's
own float type; float32: what runs fast on CPUs; auto: base, or where that loses the adapter's
change the first of `_FINER` that keeps it, for the layers that the adapter changes alone."""
_FINER: tuple[Bits, ...] = ("8", "dense")


class Survival(NamedTuple):
    """How much of the adapter's change survives quantization, over all weights it changes.

    D is the change, W the base model's weights and E the exported ones, all as one long vector.
    """

    kept: float
    """(E - W)·D / D·D: the share of the change that is kept."""
    noise: float
    """|E - W - D| / |D|: the noise that rounding adds, relative to the change."""

    @property
    def is_good(self) -> bool:
        """Whether 95 % of the change is kept, and rounding adds less than half of its size.

        Of two models in 4 and 5 bits, the noise 2.4 and 0.8 times the change, both lost answers;
        at 0.15 all answers were the same (docs/guides/export.md).
        """
        return self.kept >= 0.95 and self.noise < 0.5

    def describe(self) -> str:
        """Both numbers in a sentence."""
        return (
            f"Rounding keeps {self.kept:.1%} of the adapter's change, and adds noise "
            f"{self.noise:.2f} its size."
        )


class Fused(NamedTuple):
    """A model that has the adapter in its weights."""

    model: Any
    config: dict[str, Json]
    """The content of its config.json."""
    survival: Survival
    bits: Bits
    """How its weights are stored; never auto."""
    survival_as_base: Survival | None = None
    """Of what auto tried first, where it did not keep the adapter's change."""


def fuse(folder: Path, adapter: Path, reference: str, bits: Bits = "base") -> Fused:
    """The model in `folder` with the adapter in its weights.

    Fusing is mlx_lm's, in float32 whatever the model is stored in. Layers that the adapter does
    not change stay as they are stored, bit for bit, unless they have more bits than `bits` asks.

    Args:
        folder: The base model's folder.
        adapter: The adapter's folder, in mlx_lm's layout.
        reference: How the user names the base model, for errors.
        bits: How the weights are stored.

    Raises:
        ModelNotFound: the adapter is missing or broken, or mlx_lm cannot load the model.
        AdapterMismatch: the adapter was trained for another model.
    """
    if bits != "auto":
        return _fused(folder, adapter, reference, bits)
    found = _fused(folder, adapter, reference, "base")
    as_base = found.survival
    # Weights that are floats already are not what loses a change of usual size.
    is_quantized = "quantization" in found.config
    for finer in _FINER:
        if found.survival.is_good or not is_quantized:
            break
        # Read again, as its layers are no longer the base model's; two would not fit everywhere.
        found = found._replace(model=None)
        found = _fused(folder, adapter, reference, finer, only_finer=True)
    return found if found.bits == "base" else found._replace(survival_as_base=as_base)


def _fused(
    folder: Path, adapter: Path, reference: str, bits: Bits, only_finer: bool = False
) -> Fused:
    """As `fuse`, for one precision; with `only_finer` no layer gets fewer bits than it has."""
    model, config = load_stored(folder)
    before = dict(tree_flatten(model.parameters()))
    attach_adapter(model, adapter, reference)
    floats = floats_of(before)
    adapted = {name: m for name, m in model.named_modules() if hasattr(m, "fuse")}
    layers = {
        name: _fused_layer(module, bits, floats, only_finer) for name, module in adapted.items()
    }
    model.update_modules(tree_unflatten([(name, layer.module) for name, layer in layers.items()]))
    trained = {} if layers else _take_in(model, before, adapter)
    if bits != "base" and not only_finer:
        _bring_to(model, bits, floats)
    sums = [layer.sums for layer in layers.values()]
    sums += _sums_of_trained(model, before, trained)
    model.eval()
    return Fused(model, _described(config, model, bits), _survival(sums), bits)


def write_model(fused: Fused, source: Path, target: Path, prompt_format: Format) -> None:
    """Fill the folder `target` with a model that mlx_lm and transformers load.

    The chat template is the prompt format's, and its stop tokens are among the end tokens.

    Args:
        fused: The model.
        source: The base model's folder, whose tokenizer and licences go along.
        target: The folder to fill, which exists.
        prompt_format: How prompts are written.
    """
    from mlx_lm.utils import load_tokenizer, save_config, save_model

    _copy(source, target)
    _write_template(target, prompt_format)
    tokenizer = load_tokenizer(target, eos_token_ids=fused.config.get("eos_token_id"))
    stops = {"eos_token_id": stop_tokens(tokenizer, [prompt_format.name])}
    save_model(target, fused.model)
    save_config(fused.config | stops, target / "config.json", keep_vision_config=_sees(fused.model))
    if (generation := target / "generation_config.json").is_file():
        write_json(generation, read_json(generation) | stops)


class _Sums(NamedTuple):
    """Of one layer: D·D, (E - W)·D and |E - W - D|²."""

    change: float
    kept: float
    noise: float


class _Layer(NamedTuple):
    module: Any
    sums: _Sums


def _fused_layer(module: Any, bits: Bits, floats: mx.Dtype, only_finer: bool) -> _Layer:
    """One adapted layer as it will be stored; its float32 weights are gone when this returns."""
    base = module.linear if "linear" in module else module.embedding
    stored_before = stored_as(base, floats)
    target = stored_before.at_least(bits, base) if only_finer else stored_before.at(bits, base)
    bias = base.bias if "bias" in base else None
    # Products in half precision would lose small changes before anything is rounded.
    module.set_dtype(mx.float32)
    before = weight_of(base)
    fused = module.fuse(dequantize=True)
    wanted = fused.weight
    if bias is not None:
        fused.bias = bias.astype(target.floats)
    stored = target.applied(fused)
    return _Layer(stored, _sums(before, wanted, weight_of(stored)))


def _take_in(model: Any, before: dict[str, mx.array], adapter: Path) -> dict[str, mx.array]:
    """Of a fully fine-tuned model, the trained weights by name.

    Those in the model are brought to the float type that they had before, in place.
    """
    trained = mx.load(str(adapter / WEIGHTS))
    assert isinstance(trained, dict)
    own = [(name, value.astype(before[name].dtype)) for name, value in trained.items()]
    model.load_weights(own, strict=False)
    return trained


def _sums_of_trained(
    model: Any, before: dict[str, mx.array], trained: dict[str, mx.array]
) -> list[_Sums]:
    modules = dict(model.named_modules())
    found = []
    for name, value in trained.items():
        path, _, leaf = name.rpartition(".")
        module = modules[path]
        after = weight_of(module) if leaf == "weight" else module[leaf].astype(mx.float32)
        found.append(_sums(before[name], value, after))
    return found


def _bring_to(model: Any, bits: Bits, floats: mx.Dtype) -> None:
    """Store what is not yet so in the precision that was asked for, in place."""
    changed = []
    for name, module in _quantisable(model):
        stored = stored_as(module, floats)
        target = stored.at(bits, module)
        # Fewer bits than were asked for: more would add nothing to them.
        is_finer = stored.bits is not None and stored.bits <= (target.bits or 0)
        if target.bits != stored.bits and not is_finer:
            changed.append((name, target.applied(_plain(module))))
    model.update_modules(tree_unflatten(changed))
    if bits == "float32":
        model.set_dtype(mx.float32)


def _quantisable(model: Any) -> Iterator[tuple[str, Any]]:
    wanted = getattr(model, "quant_predicate", None) or (lambda path, module: True)
    for name, module in model.named_modules():
        if is_quantised(module) or (hasattr(module, "to_quantized") and wanted(name, module)):
            yield name, module


def _plain(module: Any) -> Any:
    """A layer as a module that is not quantised, in float32."""
    from mlx_lm.utils import dequantize_model

    alone = nn.Module()
    alone.layer = module
    module.set_dtype(mx.float32)
    return dequantize_model(alone).layer


def _sums(before: mx.array, wanted: mx.array, after: mx.array) -> _Sums:
    before = before.astype(mx.float32)
    change, done = wanted.astype(mx.float32) - before, after - before
    sums: Any = mx.stack(
        [mx.sum(change * change), mx.sum(done * change), mx.sum(mx.square(done - change))]
    ).tolist()
    return _Sums(*sums)


def _survival(sums: list[_Sums]) -> Survival:
    change = sum(part.change for part in sums)
    if change == 0:
        return Survival(1.0, 0.0)
    kept = sum(part.kept for part in sums) / change
    return Survival(kept, (sum(part.noise for part in sums) / change) ** 0.5)


def _described(config: dict[str, Json], model: Any, bits: Bits) -> dict[str, Json]:
    """The model's config, with how each layer is stored now."""
    layers = {name: m for name, m in model.named_modules() if is_quantised(m)}
    before = config.get("quantization") or {}
    config = {k: v for k, v in config.items() if not k.startswith("quantization")}
    if bits == "float32":
        config |= {name: "float32" for name in ("torch_dtype", "dtype") if name in config}
    if not layers:
        return config
    each = {name: Stored.of(module).to_json() for name, module in layers.items()}
    usual = {"mode": "affine"} | {
        key: before[key] for key in ("group_size", "bits", "mode") if key in before
    }
    if usual.keys() == {"mode"}:
        usual = next(iter(each.values()))
    special = {name: stored for name, stored in each.items() if stored != usual}
    return config | {"quantization": usual | special}


_COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "*.tiktoken", "vocab.json", "vocab.txt", "merges.txt"),
    *("generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
)
"""The files of a model folder besides weights and config; never code."""


def _copy(source: Path, target: Path) -> None:
    for path in sorted({path for pattern in _COPIED for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def _write_template(target: Path, prompt_format: Format) -> None:
    """Put the format's chat template in the two places where it is looked for."""
    (target / "chat_template.jinja").write_text(prompt_format.chat_template, "utf-8")
    path = target / "tokenizer_config.json"
    found: dict[str, Json] = read_json(path) if path.is_file() else {}
    # mlx_lm would render prompts and read answers as they say, whatever the template is.
    found = {k: v for k, v in found.items() if k not in ("chat_template_type", "tool_parser_type")}
    parser = {"tool_parser_type": prompt_format.tool_parser} if prompt_format.tool_parser else {}
    write_json(path, found | {"chat_template": prompt_format.chat_template} | parser)


def _sees(model: Any) -> bool:
    """Whether there is a part for images, which wants its own config."""
    return "vision_tower" in getattr(model, "model", {})
