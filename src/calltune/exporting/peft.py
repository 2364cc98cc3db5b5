"""LoRA and DoRA adapters, converted from mlx_lm's layout to Hugging Face PEFT's and back.

mlx_lm keeps A as (in, rank) and B as (rank, out) and multiplies by `scale`; PEFT keeps both
transposed and multiplies by `lora_alpha / r`, or with rsLoRA by `lora_alpha / sqrt(r)`.
Source: peft/tuners/lora/config.py, peft/tuners/lora/layer.py and peft/utils/save_and_load.py, 0.21.
"""

import re
from pathlib import Path

import mlx.core as mx

from calltune.errors import ModelNotFound, OptionError
from calltune.files import dumps, read_json, write_json
from calltune.models.loading import CONFIG, WEIGHTS
from calltune.types import Json

PEFT_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_PARTS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
"""mlx_lm's name of a tensor, and PEFT's."""
_UNKNOWN_HERE = (
    *("rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias"),
    *("target_parameters", "trainable_token_indices", "layer_replication", "use_qalora"),
    *("alora_invocation_tokens", "use_bdlora", "kasa_config", "velora_config", "arrow_config"),
    "monteclora_config",
)
"""Settings of PEFT, off by default, that mlx_lm cannot express."""
_CHANGE_THE_BASE = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "loftq": "LoftQ",
    "lora_ga": "LoRA-GA",
}
"""Values of `init_lora_weights`, or how they begin, that subtract from the base model's weights
what the adapter begins with: added to the weights as published, it would count twice."""
_KEEP_THE_BASE = ("gaussian", "eva", "orthogonal", "mica")
"""The other values besides true and false; they only say what A and B began as."""


def is_peft(folder: Path) -> bool:
    """Whether a folder holds an adapter in PEFT's layout."""
    if (folder / WEIGHTS).exists():
        return False
    if (folder / PEFT_WEIGHTS).is_file():
        return True
    return (folder / CONFIG).is_file() and "peft_type" in _config(folder / CONFIG)


def check_peft(folder: Path) -> None:
    """Check by its configuration that an adapter of PEFT's means the same in mlx_lm's layout.

    Raises:
        ModelNotFound: the configuration is missing or broken.
        OptionError: it is no LoRA adapter, it was trained on changed weights of its base model, or
            it uses what mlx_lm cannot express.
    """
    config = _config(folder / CONFIG)
    if not (folder / PEFT_WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise ModelNotFound(
            f"{folder} has adapter_model.bin, which is not read, as loading it may run code; save "
            f"the adapter again as {PEFT_WEIGHTS}"
        )
    if config.get("peft_type") != "LORA":
        raise OptionError(f"{folder} is a {config.get('peft_type')} adapter; only LoRA can be read")
    _refuse_changed_base(folder, config)
    found = [name for name in _UNKNOWN_HERE if config.get(name)]
    if config.get("bias", "none") != "none":
        found.append("bias")
    if found:
        raise OptionError(
            f"{folder} uses {found[0]} ({dumps(config[found[0]])[:60]}), which mlx_lm's adapters "
            "cannot express; merge it into its base with PEFT's merge_and_unload"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ModelNotFound(
            f"{folder / CONFIG} has r {dumps(rank)} and lora_alpha {dumps(alpha)}, which must be "
            "numbers; save the adapter again"
        )


def base_of_peft(folder: Path) -> str | None:
    """The base model that an adapter_config.json of PEFT's names; None where it names none."""
    name = _config(folder / CONFIG).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def write_peft(adapter: Path, target: Path, reference: str) -> None:
    """Fill the folder `target` with an adapter of mlx_lm's layout in PEFT's.

    Args:
        adapter: The folder of the adapter.
        target: The folder to fill, which exists.
        reference: The base model, for PEFT's config.

    Raises:
        OptionError: it is no LoRA or DoRA adapter, or PEFT's names of its layers are not known.
    """
    config = _config(adapter / CONFIG)
    kind, lora = config.get("fine_tune_type", "lora"), config.get("lora_parameters")
    if kind not in ("lora", "dora") or not isinstance(lora, dict):
        raise OptionError(
            f"{adapter} holds whole weights ({kind}), and PEFT has adapters; use --to mlx"
        )
    weights = _weights(adapter / WEIGHTS)
    names = [_layer_and_module(name, weights[name]) for name in weights]
    mx.save_safetensors(
        str(target / PEFT_WEIGHTS),
        {_to_peft(name): _turned(value) for name, value in sorted(weights.items())},
        metadata={"format": "pt"},
    )
    alpha = lora["scale"] * lora["rank"]
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": reference,
        "r": lora["rank"],
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora.get("dropout", 0.0),
        "target_modules": sorted({module.rpartition(".")[2] for _, module in names}),
        "layers_to_transform": sorted({layer for layer, _ in names}),
        "use_dora": kind == "dora",
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    write_json(target / CONFIG, about)


def read_peft(folder: Path, target: Path, reference: str, n_layers: int) -> None:
    """Fill the folder `target` with an adapter of PEFT's layout in mlx_lm's.

    Layers and modules that PEFT did not adapt get no weights, which changes nothing in them.

    Args:
        folder: The folder of PEFT's adapter.
        target: The folder to fill, which exists.
        reference: The base model.
        n_layers: How many layers the base model has.

    Raises:
        ModelNotFound: a file is missing or broken.
        OptionError: it is no LoRA adapter, or uses what mlx_lm cannot express.
    """
    check_peft(folder)
    config = _config(folder / CONFIG)
    weights = {_from_peft(name): value for name, value in _weights(folder / PEFT_WEIGHTS).items()}
    names = [_layer_and_module(name, value) for name, value in weights.items()]
    lowest = min(layer for layer, _ in names)
    if max(layer for layer, _ in names) >= n_layers:
        raise OptionError(
            f"{folder} adapts layers that {reference} does not have; name its base with --model"
        )
    rank = int(config["r"])
    by = rank**0.5 if config.get("use_rslora") else rank
    mx.save_safetensors(
        str(target / WEIGHTS), {name: _turned(value) for name, value in sorted(weights.items())}
    )
    about: dict[str, Json] = {
        "model": reference,
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": n_layers - lowest,
        "lora_parameters": {
            "rank": rank,
            "scale": config["lora_alpha"] / by,
            "dropout": config.get("lora_dropout", 0.0),
            "keys": sorted({module for _, module in names}),
        },
    }
    write_json(target / CONFIG, about)


def n_layers_of(folder: Path) -> int:
    """How many layers the model in a folder has, by its config.json.

    Raises:
        ModelNotFound: the config does not say.
    """
    config = read_json(folder / "config.json")
    for part in (config, config.get("text_config") or {}):
        if isinstance(found := part.get("num_hidden_layers"), int):
            return found
    raise ModelNotFound(f"{folder / 'config.json'} has no num_hidden_layers; check the model")


def _refuse_changed_base(folder: Path, config: dict[str, Json]) -> None:
    start = config.get("init_lora_weights", True)
    if start is None or isinstance(start, bool) or str(start).lower() in _KEEP_THE_BASE:
        return
    name = next(
        (n for key, n in _CHANGE_THE_BASE.items() if str(start).lower().startswith(key)), ""
    )
    why = (
        f"{name} changes the base model's weights before training, and the adapter fits only those"
        if name
        else "which calltune does not know: the base model's weights may have been changed for it"
    )
    raise OptionError(
        f"{folder} has init_lora_weights {dumps(start)[:60]}: {why}; save it as plain LoRA with "
        "PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…), or export the "
        "merged model"
    )


def _layer_and_module(name: str, value: mx.array) -> tuple[int, str]:
    """The layer's number, and the module's name in it, of a weight by its name in mlx_lm."""
    module, _, part = name.rpartition(".")
    found = _LAYER.fullmatch(module)
    if found is None or part not in _PARTS or value.ndim != (1 if part == "m" else 2):
        raise OptionError(
            f"{name} is adapted, and its name in the other layout is not known; only the "
            "matrices of model.layers can be converted"
        )
    return int(found[1]), found[2]


def _to_peft(name: str) -> str:
    module, _, part = name.rpartition(".")
    return f"{_PREFIX}{module}.{_PARTS[part]}"


def _from_peft(name: str) -> str:
    for ours, theirs in _PARTS.items():
        if name.startswith(_PREFIX) and name.endswith(f".{theirs}"):
            return f"{name.removeprefix(_PREFIX).removesuffix(theirs)}{ours}"
    raise OptionError(f"PEFT's weight {name} has no place in mlx_lm's adapters")


def _turned(value: mx.array) -> mx.array:
    return mx.contiguous(value.T)


def _config(path: Path) -> dict[str, Json]:
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelNotFound(f"{path} is no adapter's configuration; save the adapter again")
    return config


def _weights(path: Path) -> dict[str, mx.array]:
    try:
        found = mx.load(str(path))
    except RuntimeError as error:
        raise ModelNotFound(f"{path} is missing, cut short or no safetensors file") from error
    assert isinstance(found, dict)
    if not found:
        raise ModelNotFound(f"{path} has no weights; save the adapter again")
    return found
