"""model: fetch or convert a model, so that other MLX programs can load it."""

from dataclasses import dataclass, field
from pathlib import Path

from calltune.errors import OptionError
from calltune.models.resolve import resolve


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of `calltune model`."""

    model: str = "pip:gemma3-270m"
    """The model: a Hugging Face Hub id, a model folder, a .gguf file, or pip:NAME."""
    dense: bool = field(default=False, kw_only=True)
    """Write the weights dequantized, as float32, which is fast on CPUs."""

    def __post_init__(self) -> None:
        """Refuse an empty reference."""
        if not self.model.strip():
            raise OptionError("The model reference is empty; pass pip:gemma3-270m, for example")


def run(options: ModelOptions) -> Path:
    """Print the path of the model's folder, and nothing else; the same path.

    Raises:
        FetchError: the model could not be downloaded.
        ModelNotFound: there is no such model.
    """
    folder = resolve(options.model, dense=options.dense)
    print(folder)
    return folder
