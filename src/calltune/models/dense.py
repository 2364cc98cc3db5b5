"""A model folder written again with float32 weights, for programs that would crawl on less."""

import json
import shutil
from pathlib import Path

from calltune.calls import Json
from calltune.errors import ModelNotFound
from calltune.jsonl import new_folder, output_error, write_json
from calltune.models.float32 import dequantize


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
        with new_folder(folder) as beside:
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
