"""Loads a model, its tokenizer and its adapter into memory for a backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal

from calltune.errors import AdapterMismatch, CalltuneError, ModelNotFound
from calltune.files import read_json
from calltune.models.backend import Backend
from calltune.models.dense import cast_to_float32, dequantize
from calltune.models.memory import device_bytes
from calltune.models.resolve import resolve
from calltune.terminal_text import Heartbeat
from calltune.types import Json

Compute = Literal["auto", "quantized", "dense"]
WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """mlx_lm's model and tokenizer, and where they came from."""

    model: Any
    """An `mlx.nn.Module` in evaluation mode."""
    tokenizer: Any
    """An `mlx_lm.tokenizer_utils.TokenizerWrapper`."""
    folder: Path
    reference: str


def load(
    reference: str, backend: Backend, adapter: Path | None = None, compute: Compute | None = None
) -> LoadedModel:
    """Load the model that `reference` names, with its adapter where one is given.

    On the CPU all floats become float32, so that adapters train and run in float32 too. Quantised
    weights are dequantised on the CPU, and on a GPU where `compute` is dense; for training, auto
    decides. Dequantised weights compute the same function. Call `backend.choose` first: this
    imports MLX.

    Raises:
        ModelNotFound: the model, its files or the adapter's files are missing or broken.
        AdapterMismatch: the adapter was trained for another model.
        FetchError: the model could not be fetched.
    """
    if adapter is not None:
        check_adapter(adapter)
    folder = resolve(reference)

    import mlx.core as mx
    from mlx_lm.utils import load_tokenizer

    if compute is None:
        dequantizes = backend.device == "cpu"
    else:
        memory = device_bytes(backend)
        dequantizes = is_dense(compute, backend.device, stored_bytes(folder), memory)
    with Heartbeat(f"loading {reference}"):
        model, config = load_stored(folder)
        if dequantizes:
            dequantize(model, backend.precision)
        elif backend.precision == "float32":
            cast_to_float32(model)
        mx.eval(model.parameters())
        if adapter is not None:
            attach_adapter(model, adapter, reference)
        model.eval()
        tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    return LoadedModel(model, tokenizer, folder, reference)


def context_length(folder: Path) -> int | None:
    """How many positions a loaded model was made for; None if its config.json does not say."""
    config = read_json(folder / "config.json")
    text = config.get("text_config") if isinstance(config, dict) else None
    for part in (config, text):
        found = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(found, int) and found > 0:
            return found
    return None


def load_stored(folder: Path) -> tuple[Any, dict[str, Json]]:
    """The model in a folder as it is stored, and its config; weights are read when first needed.

    Raises:
        ModelNotFound: mlx_lm cannot load it.
    """
    from mlx_lm.utils import load_model

    try:
        model, config = load_model(folder, lazy=True)
    except (ValueError, TypeError, KeyError, RuntimeError, JSONDecodeError) as error:
        raise ModelNotFound(
            f"The model in {folder} cannot be loaded ({_first_line(error)}); check that its files "
            "are whole and that mlx_lm knows its model_type"
        ) from error
    return model, config


def is_dense(
    compute: Compute, device: Literal["metal", "cuda", "cpu"], stored_bytes: int, memory: int
) -> bool:
    """Whether a training dequantizes the weights, should they be quantized.

    Products with quantized weights are fast on Metal alone. Elsewhere `auto` dequantizes them; on
    CUDA only where their 16 bits, four times the `stored_bytes` of the weight files, take at most
    half of the GPU's `memory`, in bytes.
    """
    if compute != "auto":
        return compute == "dense"
    return device == "cpu" or (device == "cuda" and 4 * stored_bytes <= memory / 2)


def stored_bytes(folder: Path) -> int:
    """The size of a model's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def check_adapter(adapter: Path) -> None:
    """Check that an adapter folder holds the files that mlx_lm writes.

    Raises:
        ModelNotFound: a file is missing.
    """
    _refuse_peft(adapter)
    for name in (WEIGHTS, CONFIG):
        if not (adapter / name).is_file():
            raise ModelNotFound(
                f"No {name} in {adapter}; train first with calltune train --adapter-path "
                f"{adapter}, or pass the --adapter-path of a finished training"
            )


def _refuse_peft(adapter: Path) -> None:
    if (adapter / WEIGHTS).is_file():
        return
    config = read_json(adapter / CONFIG) if (adapter / CONFIG).is_file() else {}
    if any(adapter.glob("adapter_model.*")) or (isinstance(config, dict) and "peft_type" in config):
        raise ModelNotFound(
            f"The adapter in {adapter} is one of Hugging Face's PEFT; convert it with calltune "
            f"export --to adapter --adapter-path {adapter} --output FOLDER, and give that folder"
        )


def base_model_of(adapter: Path) -> str:
    """The reference of the base model that an adapter folder names.

    Raises:
        ModelNotFound: there is no adapter, or it names no model.
        DataError: its configuration is not JSON.
    """
    config_file = adapter / CONFIG
    if not config_file.is_file():
        raise ModelNotFound(
            f"No adapter in {adapter} ({CONFIG} is missing); train first, or "
            "give its folder with --adapter-path"
        )
    _refuse_peft(adapter)
    config = read_json(config_file)
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise ModelNotFound(f"{config_file} names no model; give the base model with --model")
    return str(config["model"])


def attach_adapter(model: Any, adapter: Path, reference: str) -> None:
    """Put an adapter's layers on a model, in place.

    Raises:
        AdapterMismatch: the adapter's tensors do not fit the model.
        ModelNotFound: the adapter's files are missing or broken.
    """
    from mlx_lm.tuner.utils import load_adapters

    check_adapter(adapter)
    try:
        trained_for = read_json(adapter / CONFIG).get("model", "an unnamed model")
    except (CalltuneError, AttributeError) as error:
        raise ModelNotFound(
            f"{adapter / CONFIG} is broken ({_first_line(error)}); train the adapter again"
        ) from error
    try:
        load_adapters(model, str(adapter))
    except ValueError as error:
        raise AdapterMismatch(
            f"The adapter in {adapter} was trained for {trained_for} and does not fit {reference}; "
            f"pass --model {trained_for}, or the adapter of {reference}"
        ) from error
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ModelNotFound(
            f"The adapter in {adapter} is broken ({_first_line(error)}); train it again"
        ) from error


@contextmanager
def disable_adapter(model: Any) -> Iterator[None]:
    """Run the block with the model's LoRA layers removed; they are put back at its end.

    As PEFT's method of the same name. Fully fine-tuned weights stay in place.
    """
    from mlx.utils import tree_unflatten

    layers = [(name, layer) for name, layer in model.named_modules() if "lora_a" in layer]
    below = [(name, layer.get("linear") or layer["embedding"]) for name, layer in layers]
    model.update_modules(tree_unflatten(below))
    try:
        yield
    finally:
        model.update_modules(tree_unflatten(layers))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
