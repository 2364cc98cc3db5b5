"""Converts a model to float32, or from quantised to dense weights, in memory or as a folder.

A CPU is fast in float32 alone.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from calltune.errors import ModelNotFound
from calltune.files import atomic_folder, output_error, write_json
from calltune.types import Json

Precision = Literal["float32", "as stored"]


def cast_to_float32(model: Any) -> None:
    """Convert every float of a lazily loaded model to float32, in place; quantised weights stay."""
    import mlx.core as mx

    _make_scales_float32(model)
    model.set_dtype(mx.float32)
    _evaluate_one_by_one(model)


def dequantize(model: Any, precision: Precision = "float32") -> None:
    """Dequantise a lazily loaded model, in place, to float32 or to the type of its scales."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model

    if precision == "float32":
        _make_scales_float32(model)
    dequantize_model(model)
    if precision == "float32":
        model.set_dtype(mx.float32)
    _evaluate_one_by_one(model)


def _evaluate_one_by_one(model: Any) -> None:
    """Hold the stored and the converted form of only one array at a time."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    parameters: Any = tree_flatten(model.parameters())
    for _, array in parameters:
        mx.eval(array)


def _make_scales_float32(model: Any) -> None:
    """Make the scales of quantised modules float32, so that dequantising rounds nothing."""
    import mlx.core as mx

    for _, module in model.named_modules():
        # Other modes than affine have integer scales and no biases.
        if getattr(module, "mode", None) == "affine":
            module.scales = module.scales.astype(mx.float32)
            module.biases = module.biases.astype(mx.float32)


def write_dense(source: Path, folder: Path) -> None:
    """Write the model in `source` to `folder` with its weights dequantised to float32.

    A folder that is already there is left as it is. Imports MLX.

    Raises:
        ModelNotFound: mlx_lm cannot load the model.
        OutputError: the folder cannot be written.
    """
    from mlx_lm.utils import load_model, save_model

    try:
        model, _ = load_model(source, lazy=True)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ModelNotFound(
            f"The model in {source} cannot be loaded ({error}); check that its files are whole"
        ) from error
    dequantize(model)
    config: dict[str, Json] = json.loads((source / "config.json").read_text("utf-8"))
    config = {key: value for key, value in config.items() if not key.startswith("quantization")}
    try:
        with atomic_folder(folder) as beside:
            _copy_small_files(source, beside)
            save_model(beside, model)
            write_json(beside / "config.json", config | {"torch_dtype": "float32"})
    except OSError as error:
        raise output_error(folder, error) from error


def _copy_small_files(source: Path, target: Path) -> None:
    """The tokenizer and what belongs to it; weights and code stay behind."""
    for path in source.iterdir():
        is_index = path.name.endswith(".safetensors.index.json")
        if path.is_file() and path.suffix not in (".safetensors", ".py") and not is_index:
            shutil.copyfile(path, target / path.name)
