"""The shared options, combined as commands do."""

from dataclasses import dataclass, fields

import pytest
from cyclopts import App

from calltune.cli import app
from calltune.errors import OptionError
from calltune.models.options import (
    DeviceOption,
    MaxTokensOption,
    ModelOption,
    check_minimums,
    check_num_examples,
)
from calltune.training.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(DeviceOption, MaxTokensOption, ModelOption):
    """Options as those of a command."""

    max_tokens: int = 7
    more: int | None = None


def commands(parent: App, prefix: str = "") -> dict[str, App]:
    """Every command under its name."""
    found: dict[str, App] = {}
    for name in parent:
        if not name.startswith("-"):
            inner = commands(parent[name], f"{prefix}{name} ")
            found |= inner or {f"{prefix}{name}": parent[name]}
    return found


COMMANDS = commands(app)


def test_parts_combine_into_slots_with_the_last_base_first() -> None:
    assert [field.name for field in fields(Options)] == ["model", "max_tokens", "device", "more"]
    assert Options().max_tokens == 7 and not hasattr(Options(), "__dict__")


def test_an_option_with_another_default_keeps_its_help() -> None:
    parser = App()

    @parser.default
    def _(given: Options) -> None:
        pass

    helps = {
        each.name: each.parameter.help
        for each in parser.assemble_argument_collection(parse_docstring=True)
    }
    assert helps["--given.max-tokens"] == "Maximum length of an answer, in tokens."


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_option_of_every_command_has_a_help_text(command: App) -> None:
    assert command.help
    arguments = [
        each
        for each in command.assemble_argument_collection(parse_docstring=True)
        if each.name != "*"
    ]
    helps = {each.name: each.parameter.help or "" for each in arguments}
    assert helps and [name for name, text in helps.items() if not text] == []
    # Help texts are Markdown, where <name> is a tag and not shown.
    assert [name for name, text in helps.items() if "<" in text] == []


def test_a_value_below_its_minimum_is_named() -> None:
    check_minimums(Options(), max_tokens=7, more=1)
    with pytest.raises(OptionError, match="--max_tokens is 7; it must be at least 8"):
        check_minimums(Options(), max_tokens=8)


def test_what_is_no_number_is_below_every_minimum() -> None:
    with pytest.raises(OptionError, match="--dropout is nan"):
        TrainOptions(dropout=float("nan"))
    for name, value in (("learning_rate", "inf"), ("learning_rate", "nan"), ("scale", "nan")):
        with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} is {value}"):
            TrainOptions(**{name: float(value)})
    with pytest.raises(OptionError, match="--scale is 0.0, with which LoRA trains nothing"):
        TrainOptions(scale=0.0)


@pytest.mark.parametrize("number", [0, -2])
def test_a_number_of_examples_is_positive_or_all(number: int) -> None:
    for possible in (1, 99, -1):
        check_num_examples(possible)
    with pytest.raises(OptionError, match=f"--num_examples is {number}; give 1 or more, or -1"):
        check_num_examples(number)
