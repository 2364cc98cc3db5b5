"""Fetch and convert a model, so that other MLX programs can be pointed at it."""

from dataclasses import dataclass, field
from pathlib import Path

from calltune.errors import OptionError


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and in which precision."""

    model: str = "pip:gemma3-270m"
    """A hub id, a model folder, a .gguf file, pip:gemma3-270m or pip:smollm2-135m."""
    dense: bool = field(default=False, kw_only=True)
    """Write the weights as float32, dequantised: what runs fast on a CPU."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise OptionError("The model reference is empty; pass for instance pip:gemma3-270m")


def run(options: ModelOptions) -> Path:
    """Print the path of the model's folder, and nothing else, on standard output."""
    from calltune.models.resolve import resolve

    folder = resolve(options.model, dense=options.dense)
    print(folder)
    return folder
