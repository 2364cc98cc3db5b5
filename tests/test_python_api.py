"""The commands as Python functions; mypy checks this file, which proves that they are typed."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import mlx.core as mx
import pytest

import calltune
from calltune import (
    AnalyzeOptions,
    GateOptions,
    InferOptions,
    PrepOptions,
    TrainOptions,
    analyze,
    gate,
    infer,
    load,
    look,
    prep,
    test,
    train,
)
from calltune.errors import DataError, OptionError
from calltune.models import cpu_math

from support import tiny


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; what a command settles about where this process computes is undone."""
    monkeypatch.chdir(tmp_path)
    device = mx.default_device()
    yield tmp_path
    mx.set_default_device(device)
    cpu_math.uninstall_cpu_patches()


def test_the_steps_of_the_pipeline_are_functions(in_empty_folder: Path, tiny_gemma: Path) -> None:
    model = str(tiny_gemma)
    tiny.write_rows(in_empty_folder / "rows.jsonl", 40)
    rows = load(dataset="rows.jsonl", output_dir=Path("rows"))
    prep(PrepOptions(input_file=rows))
    look(model=model, num_examples=1)
    base = infer(
        InferOptions(model=model, num_examples=2, max_tokens=4, device="cpu", batch_size=2)
    )
    adapter = assert_type(
        train(model=model, iters=2, num_layers=2, adapter_path=Path("adapter"), device="cpu"), Path
    )
    tuned = test(adapter_path=adapter, num_examples=2, max_tokens=4, device="cpu", batch_size=2)
    comparison = analyze(AnalyzeOptions(base_results=base, finetuned_results=tuned))
    assert json.loads(comparison.read_text()).keys() >= {"base", "tuned"}
    assert assert_type(gate(tuned, baseline=base), Path) == tuned
    assert gate(GateOptions(tuned, baseline=base)) == tuned


def test_values_are_converted_as_on_the_command_line(in_empty_folder: Path) -> None:
    with pytest.raises(DataError, match="No file nowhere/train.jsonl"):
        train(data="nowhere", modules=["q_proj"])  # type: ignore[call-overload]


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match=r"train\(\) .*'iter'; did you mean 'iters'\?"):
        train(iter=80)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected .* 'colour'$"):
        load(colour="red")  # type: ignore[call-overload]


def test_a_missing_option_is_named() -> None:
    with pytest.raises(TypeError, match=r"prep\(\) .*'input_file'"):
        prep()  # type: ignore[call-overload]


def test_an_impossible_value_is_named() -> None:
    with pytest.raises(OptionError, match="--iters is 0; it must be at least 1"):
        train(iters=0)
    with pytest.raises(OptionError, match=r"train\(\): iters is 'many'; .*integer"):
        train(iters="many")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"train\(\): device is 'tpu'; .*'cpu' or 'gpu'"):
        train(device="tpu")  # type: ignore[call-overload]


def test_options_and_keywords_together_are_refused() -> None:
    with pytest.raises(TypeError, match=r"train\(\) too many positional arguments"):
        train(TrainOptions(), iters=3)  # type: ignore[call-overload]


def test_a_function_shows_its_options_and_documentation() -> None:
    assert (
        list(inspect.signature(train).parameters)[:2]
        == list(inspect.signature(TrainOptions).parameters)[:2]
    )
    assert inspect.signature(train).return_annotation is Path
    assert (train.__doc__ or "").startswith("Train")
    assert "num_examples: int | None = None" in repr(load)


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import calltune;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - sys.stdlib_module_names), [n for n in sys.modules if 'calltune.' in n])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "['calltune'] []\n"


def test_every_public_name_can_be_imported_without_an_engine() -> None:
    code = (
        "import sys, calltune; values = [getattr(calltune, name) for name in calltune.__all__];"
        "print(any(m in sys.modules for m in ('mlx', 'mlx_lm', 'transformers', 'datasets')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_no_room_hides_a_function() -> None:
    rooms = {path.stem for path in Path(calltune.__file__).parent.iterdir()}
    assert rooms & set(calltune.__all__) == set()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        _ = calltune.tarin  # type: ignore[attr-defined]
    assert "train" in dir(calltune)
