"""The options that several commands share: each field with one help text and one default.

Each class below is a part of a command's options, and is used by inheriting from it:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class AskOptions(DeviceOption, MaxTokensOption, BaseModelOption):
        '''Options of `calltune ask`.'''

        max_tokens: int = 1024

Python lists the fields of the last base class first. A class that gives a field another default
keeps its help text. The parts have empty `__slots__`, so any number of them can be combined; only
the class at the end has `slots=True`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calltune.errors import OptionError

DEFAULT_MODEL = "mlx-community/gemma-3-1b-it-4bit"
DEFAULT_ADAPTER = Path("gemma-3-1b-function-calling-4bit")


@dataclass(frozen=True, kw_only=True)
class ModelOption:
    """A model that is named, or the default model."""

    __slots__ = ()

    model: str = DEFAULT_MODEL
    """Base model: a Hugging Face Hub id, a model folder, a .gguf file, or pip:NAME."""


@dataclass(frozen=True, kw_only=True)
class BaseModelOption:
    """A model that is named, or the one that an adapter was trained on."""

    __slots__ = ()

    model: str | None = None
    """Base model: a Hugging Face Hub id, a model folder, a .gguf file, or pip:NAME. By default the
    model that the adapter was trained on."""


@dataclass(frozen=True, kw_only=True)
class AdapterOption:
    """An adapter, by default the one that `calltune train` writes."""

    __slots__ = ()

    adapter_path: Path = DEFAULT_ADAPTER
    """Folder of the adapter."""


@dataclass(frozen=True, kw_only=True)
class OptionalAdapterOption:
    """An adapter, by default none."""

    __slots__ = ()

    adapter_path: Path | None = None
    """Folder of an adapter to apply to the model. By default none."""


@dataclass(frozen=True, kw_only=True)
class FormatOption:
    """A prompt format that is named, or the one whose control tokens the model has."""

    __slots__ = ()

    format: str | None = None
    """Prompt format: gemma, or chatml for Qwen and SmolLM2. By default the one whose control tokens
    are in the model's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class PreparedFormatOption:
    """The prompt format that prepared rows are written in."""

    __slots__ = ()

    format: str = "gemma"
    """Prompt format: gemma, or chatml for Qwen and SmolLM2."""


@dataclass(frozen=True, kw_only=True)
class MaxTokensOption:
    """The length of an answer."""

    __slots__ = ()

    max_tokens: int = 512
    """Maximum length of an answer, in tokens."""


@dataclass(frozen=True, kw_only=True)
class NumExamplesOption:
    """The number of test examples."""

    __slots__ = ()

    num_examples: int = 50
    """Number of test examples to answer; -1 for all."""


@dataclass(frozen=True, kw_only=True)
class DataOption:
    """The prepared splits."""

    __slots__ = ()

    data: Path = Path("data/training")
    """Folder with the splits that `calltune prep` wrote."""


@dataclass(frozen=True, kw_only=True)
class ResultsDirOption:
    """Where results are written."""

    __slots__ = ()

    results_dir: Path = Path("data/results")
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class DeviceOption:
    """Where MLX computes."""

    __slots__ = ()

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute: auto uses the GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class CallerOptions(
    DeviceOption, MaxTokensOption, FormatOption, OptionalAdapterOption, BaseModelOption
):
    """A model with an adapter that answers questions: what `calltune.Caller` takes."""

    __slots__ = ()


def check_minimums(options: Any, **minimums: float) -> None:
    """Refuse options that are too small, such as `check_minimums(self, max_tokens=1)`.

    An option that is None is accepted.

    Raises:
        OptionError: a value is below its minimum.
    """
    for name, minimum in minimums.items():
        value = getattr(options, name)
        # Not a number is below everything.
        if value is not None and not value >= minimum:
            raise OptionError(f"--{name} is {value}; it must be at least {minimum}")


def check_num_examples(num_examples: int) -> None:
    """Refuse a number of examples that is neither positive nor -1, which stands for all.

    Raises:
        OptionError: it is 0 or below -1.
    """
    if num_examples == 0 or num_examples < -1:
        raise OptionError(f"--num_examples is {num_examples}; give 1 or more, or -1 for all")
