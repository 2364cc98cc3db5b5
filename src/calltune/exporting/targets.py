"""What a tuned model can be exported to: an MLX folder, PEFT's or mlx_lm's adapter, or GGUF."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from calltune.errors import OptionError
from calltune.evaluation.prompts import prompt_format_of
from calltune.exporting.fuse import Bits, fuse, write_model
from calltune.exporting.ollama import write_modelfile
from calltune.exporting.peft import (
    base_of_peft,
    check_peft,
    is_peft,
    n_layers_of,
    read_peft,
    write_peft,
)
from calltune.files import read_json, write_json
from calltune.formats import FORMATS, Format
from calltune.gguf.write import write_gguf
from calltune.models.loading import CONFIG, base_model_of, check_adapter
from calltune.models.resolve import resolve
from calltune.types import Json

GGUF_KINDS: dict[Bits, Literal["f32", "f16", "q8_0"]] = {
    "auto": "f16",
    "dense": "f16",
    "float32": "f32",
    "8": "q8_0",
}
"""How a GGUF file stores weights, by the bits that are asked for."""


class TunedModel(NamedTuple):
    """A base model and the adapter that was trained for it."""

    adapter: Path
    """In mlx_lm's layout."""
    source: Path
    """The adapter's folder as the user named it."""
    model: str
    """The base model as the user named it."""
    folder: Path
    """The base model's."""
    prompt_format: Format
    comes_from_peft: bool


class Written(NamedTuple):
    """What a writer says about the folder that it filled."""

    facts: dict[str, Json]
    """For export.json."""
    advice: str = ""
    """What to export with to lose less; "" where nothing is lost."""


def open_tuned(
    adapter: Path, model: str | None, prompt_format: str | None, scratch: Path
) -> TunedModel:
    """The tuned model of an adapter; PEFT's is brought into mlx_lm's layout in `scratch`.

    Args:
        adapter: The adapter's folder, in mlx_lm's or PEFT's layout.
        model: The base model; by default the one that the adapter names.
        prompt_format: Its name; by default the one that the adapter was trained with, else the one
            whose tokens the model has.
        scratch: An empty folder.

    Raises:
        ModelNotFound: no such model or adapter.
        OptionError: the prompt format is unknown, or the model lacks its tokens.
    """
    from mlx_lm.utils import load_tokenizer

    source, comes_from_peft = adapter, is_peft(adapter)
    # Before a base model is fetched for nothing.
    if comes_from_peft:
        check_peft(adapter)
    else:
        check_adapter(adapter)
    model = model or (base_of_peft(adapter) if comes_from_peft else None) or base_model_of(adapter)
    folder = resolve(model)
    if comes_from_peft:
        read_peft(adapter, scratch, model, n_layers_of(folder))
        adapter = scratch
    trained_with = read_json(adapter / CONFIG).get("format")
    name = prompt_format or (trained_with if trained_with in FORMATS else None)
    found = prompt_format_of(name, load_tokenizer(folder), model)
    return TunedModel(adapter, source, model, folder, found, comes_from_peft)


def write_mlx(tuned: TunedModel, bits: Bits, folder: Path) -> Written:
    """Fill a folder with the fused model, for mlx_lm and transformers."""
    fused = fuse(tuned.folder, tuned.adapter, tuned.model, bits)
    write_model(fused, tuned.folder, folder, tuned.prompt_format)
    survival = fused.survival
    words = [survival.describe()]
    if (lost := fused.survival_as_base) is not None:
        stored = "not quantized" if fused.bits == "dense" else f"in {fused.bits} bits"
        words.insert(
            0,
            f"The layers that the adapter changes are {stored}: as the base model has them, "
            f"rounding would keep {lost.kept:.1%} of the change and add noise {lost.noise:.2f} its "
            "size. --bits decides otherwise.",
        )
    facts = {"bits": fused.bits, "survival": survival._asdict(), "in_words": words}
    return Written(facts, "" if survival.is_good else finer_bits(fused.bits, folder))


def finer_bits(bits: Bits, folder: Path) -> str:
    """The option that keeps more of the adapter than the exported model in `folder` does.

    `bits` is how its weights are stored.
    """
    if bits == "dense" or "quantization" not in read_json(folder / "config.json"):
        return "--bits float32"
    return "--bits dense" if bits == "8" else "--bits 8 or --bits dense"


def write_peft_adapter(tuned: TunedModel, bits: Bits, folder: Path) -> Written:
    """Fill a folder with the adapter in PEFT's layout, and the chat template."""
    write_peft(tuned.adapter, folder, tuned.model)
    # How to write prompts; PEFT's folders have a place for it.
    (folder / "chat_template.jinja").write_text(tuned.prompt_format.chat_template, "utf-8")
    return Written({})


def write_adapter(tuned: TunedModel, bits: Bits, folder: Path) -> Written:
    """Fill a folder with an adapter of PEFT's in mlx_lm's layout.

    Raises:
        OptionError: it is in that layout already.
    """
    if not tuned.comes_from_peft:
        raise OptionError(
            f"{tuned.source} is an adapter for calltune and mlx_lm already; --to adapter "
            "takes one of PEFT"
        )
    for path in tuned.adapter.iterdir():
        shutil.copyfile(path, folder / path.name)
    config = folder / CONFIG
    write_json(config, read_json(config) | {"format": tuned.prompt_format.name})
    return Written({})


def write_gguf_model(tuned: TunedModel, bits: Bits, folder: Path) -> Written:
    """Fill a folder with the fused model as one GGUF file, and Ollama's Modelfile."""
    kind = GGUF_KINDS[bits]
    with tempfile.TemporaryDirectory() as scratch:
        # In float32, so that weights are rounded once.
        fused = fuse(tuned.folder, tuned.adapter, tuned.model, "float32")
        write_model(fused, tuned.folder, Path(scratch), tuned.prompt_format)
        file = folder / f"{tuned.source.resolve().name}-{kind}.gguf"
        write_gguf(Path(scratch), file, tuned.prompt_format.name, kind)
    write_modelfile(file, tuned.prompt_format.name)
    return Written({"stored": kind})


WRITERS: dict[str, Callable[[TunedModel, Bits, Path], Written]] = {
    "mlx": write_mlx,
    "peft": write_peft_adapter,
    "adapter": write_adapter,
    "gguf": write_gguf_model,
}
"""By the value of --to."""
