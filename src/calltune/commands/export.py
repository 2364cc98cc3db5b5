"""export: a tuned model as other programs take it.

Which prompt family a tuned model speaks.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from calltune.errors import OptionError
from calltune.evaluation.results import TUNED_RESULTS
from calltune.files import new_folder, read_json, write_json
from calltune.formats import FORMATS, Format
from calltune.models.loading import CONFIG
from calltune.types import Json

if TYPE_CHECKING:
    from calltune.exporting.card import Success
    from calltune.exporting.fuse import Bits, Survival
    from calltune.models.backend import Backend


def prompt_format_of(adapter: Path, folder: Path, named: str | None, model: str) -> Format:
    """The family that `named` says, else the adapter's own, else the one whose tokens fit.

    Raises:
        OptionError: not known, or the model lacks its tokens.
    """
    from mlx_lm.utils import load_tokenizer

    from calltune.evaluation import prompts

    trained_with = read_json(adapter / CONFIG).get("format")
    name = named or (trained_with if trained_with in FORMATS else None)
    return prompts.prompt_format_of(name, load_tokenizer(folder), model)


EXPORT_NAME = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of `calltune export`."""

    to: Literal["mlx", "peft", "adapter", "gguf"] = "mlx"
    """mlx: a model folder without an adapter, which mlx_lm and transformers load; peft: the adapter
    for Hugging Face's PEFT; adapter: one of PEFT for calltune and mlx_lm; gguf: one file, for
    llama.cpp and Ollama."""
    adapter_path: Path = Path("gemma-3-1b-function-calling-4bit")
    """Folder of the adapter, mlx_lm's or PEFT's."""
    model: str | None = None
    """The base model; the one that the adapter was trained on unless given."""
    output: Path | None = None
    """The folder to write, which must not be there yet; unless given, exports/ADAPTER-TO."""
    bits: Literal["auto", "4", "8", "dense", "float32"] = "auto"
    """How the weights are stored. For mlx, auto: as the base model has them; 4, 8: quantised;
    dense: in the base model's float type; float32: what runs fast on CPUs. For gguf, auto and
    dense: float16; 8: q8_0; float32."""
    format: str | None = None
    """Prompt family: gemma or chatml; unless given, the one that the adapter was trained with."""
    data: Path | None = None
    """Folder with the test.jsonl that prep wrote: its rows are answered before and after."""
    num_examples: int = 50
    """How many of its rows; -1 is all."""
    results: Path | None = None
    """Folder with the results of calltune test, for the model card; answers that are there are not
    asked for again."""
    max_tokens: int = 512
    """Longest answer, in tokens."""
    push: str | None = None
    """A repository on the model hub, OWNER/NAME, to upload the folder to."""
    private: bool = False
    """With --push: the repository is for its owner only."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.format is not None and self.format not in FORMATS:
            raise OptionError(f"No format {self.format}; choose one of {', '.join(FORMATS)}")
        if self.num_examples == 0 or self.num_examples < -1:
            raise OptionError(
                f"--num_examples is {self.num_examples}; give 1 or more, or -1 for all"
            )
        if self.max_tokens < 1:
            raise OptionError(f"--max_tokens is {self.max_tokens}; it must be at least 1")
        if self.private and self.push is None:
            raise OptionError("--private is for --push; give the repository with --push OWNER/NAME")
        if self.bits != "auto" and self.to not in ("mlx", "gguf"):
            raise OptionError(f"--bits is for --to mlx and gguf; leave it out with --to {self.to}")
        if self.bits == "4" and self.to == "gguf":
            raise OptionError(
                "--bits 4 is not written for gguf; use 8, or quantise the file with llama.cpp"
            )


class _Tuned(NamedTuple):
    """What is exported."""

    adapter: Path
    model: str
    folder: Path
    """The base model's."""
    prompt_format: Format
    backend: "Backend"
    comes_from_peft: bool


def run(options: ExportOptions) -> Path:
    """Write the exported folder, whole or not at all, and say what it kept; the folder.

    Raises:
        AccessDenied: there is no token for the hub, or it refuses this one.
        AdapterMismatch: the adapter was trained for another model.
        ModelNotFound: no such model or adapter.
        OptionError: the folder is there already, or the format is not told by the model.
        OutputError: it cannot be written.
    """
    from calltune.exporting.push import check_name, check_token, push
    from calltune.provenance import describe, options_to_json

    if options.push is not None:
        check_name(options.push)
        check_token()
    output = options.output or _usual_output(options)
    if output.exists():
        raise OptionError(f"{output} is there already; remove it, or give another --output")
    with tempfile.TemporaryDirectory() as scratch, new_folder(output) as beside:
        tuned = _tuned(options, Path(scratch))
        facts = _WRITERS[options.to](options, tuned, beside)
        _write_card(options, tuned, output, beside, facts)
        about = {"options": options_to_json(options), "model": tuned.model}
        about |= {"format": tuned.prompt_format.name, **facts, **describe()}
        write_json(beside / EXPORT_NAME, about)
    print(f"Wrote {output} ({_megabytes(output)} MB)")
    if options.push is not None:
        print(f"Uploaded to {push(output, options.push, options.private)}")
    return output


def _usual_output(options: ExportOptions) -> Path:
    # A name such as "." has none of its own.
    adapter = options.adapter_path.resolve()
    name = f"{adapter.parent.name}-best" if adapter.name == "best" else adapter.name
    bits = "" if options.bits == "auto" else f"-{options.bits}"
    return Path("exports") / f"{name}-{options.to}{bits}"


def _tuned(options: ExportOptions, scratch: Path) -> _Tuned:
    """What is exported; an adapter of PEFT's is brought into mlx_lm's layout in `scratch`."""
    from calltune.models.backend import choose, print_backend
    from calltune.models.loading import base_model_of, check_adapter
    from calltune.models.resolve import resolve

    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.exporting.peft import base_of_peft, is_peft, n_layers_of, read_peft

    adapter = options.adapter_path
    comes_from_peft = is_peft(adapter)
    if not comes_from_peft:
        check_adapter(adapter)
    named = base_of_peft(adapter) if comes_from_peft else None
    model = options.model or named or base_model_of(adapter)
    folder = resolve(model)
    if comes_from_peft:
        read_peft(adapter, scratch, model, n_layers_of(folder))
        adapter = scratch
    prompt_format = prompt_format_of(adapter, folder, options.format, model)
    return _Tuned(adapter, model, folder, prompt_format, backend, comes_from_peft)


def _write_mlx(options: ExportOptions, tuned: _Tuned, folder: Path) -> dict[str, Json]:
    survival = _fuse_into(folder, tuned, options.bits)
    print(survival.describe())
    facts: dict[str, Json] = {"survival": survival._asdict(), "in_words": [survival.describe()]}
    found = None if options.data is None else _success(options, tuned, folder, options.data)
    if found is not None:
        print(found.describe())
        facts["success"] = found._asdict()
        facts["in_words"].append(found.describe())
    if (not survival.is_good) if found is None else found.fell:
        is_quantised = "quantization" in read_json(folder / "config.json")
        print(f"To lose less, export with {_finer(options.bits, is_quantised)}")
    return facts


def _finer(bits: "Bits", is_quantised: bool) -> str:
    if not is_quantised:
        return "--bits float32"
    return "--bits dense" if bits == "8" else "--bits 8 or --bits dense"


def _fuse_into(folder: Path, tuned: _Tuned, bits: "Bits") -> "Survival":
    """Fill the folder with the model that has the adapter in its weights."""
    from calltune.exporting.fuse import fuse, write_model

    fused = fuse(tuned.folder, tuned.adapter, tuned.model, bits)
    write_model(fused, tuned.folder, folder, tuned.prompt_format)
    return fused.survival


def _write_peft(options: ExportOptions, tuned: _Tuned, folder: Path) -> dict[str, Json]:
    from calltune.exporting.peft import write_peft

    write_peft(tuned.adapter, folder, tuned.model)
    # How to write prompts; PEFT's folders have a place for it.
    (folder / "chat_template.jinja").write_text(tuned.prompt_format.chat_template, "utf-8")
    return {}


def _write_adapter(options: ExportOptions, tuned: _Tuned, folder: Path) -> dict[str, Json]:
    if not tuned.comes_from_peft:
        raise OptionError(
            f"{options.adapter_path} is an adapter for calltune and mlx_lm already; --to adapter "
            "takes one of PEFT"
        )
    for path in tuned.adapter.iterdir():
        shutil.copyfile(path, folder / path.name)
    config = folder / "adapter_config.json"
    write_json(config, read_json(config) | {"format": tuned.prompt_format.name})
    return {}


def _write_gguf(options: ExportOptions, tuned: _Tuned, folder: Path) -> dict[str, Json]:
    from calltune.exporting.fuse import fuse, write_model
    from calltune.exporting.ollama import write_modelfile
    from calltune.gguf.write import write_gguf

    kinds = {"auto": "f16", "dense": "f16", "float32": "f32", "8": "q8_0"}
    kind: Any = kinds[options.bits]
    with tempfile.TemporaryDirectory() as scratch:
        # In whole floats, so that they are rounded once.
        fused = fuse(tuned.folder, tuned.adapter, tuned.model, "float32")
        write_model(fused, tuned.folder, Path(scratch), tuned.prompt_format)
        name = options.adapter_path.resolve().name
        file = write_gguf(
            Path(scratch), folder / f"{name}-{kind}.gguf", tuned.prompt_format.name, kind
        )
    write_modelfile(file, tuned.prompt_format.name)
    return {"stored": kind}


_WRITERS: dict[str, Callable[[ExportOptions, _Tuned, Path], dict[str, Json]]] = {
    "mlx": _write_mlx,
    "peft": _write_peft,
    "adapter": _write_adapter,
    "gguf": _write_gguf,
}
"""Each fills a folder and gives what export.json says of it."""


def _write_card(
    options: ExportOptions, tuned: _Tuned, output: Path, folder: Path, facts: dict[str, Json]
) -> None:
    from calltune.exporting.card import Subject, card, pass_on

    subject = Subject(
        to=options.to,
        name=options.push or output.name,
        reference=tuned.model,
        prompt_format=tuned.prompt_format,
        adapter=tuned.adapter,
        data=options.data,
        results=options.results,
        kept=" ".join(facts.get("in_words", [])),
    )
    (folder / "README.md").write_text(card(subject), "utf-8")
    pass_on(tuned.model, folder)


def _success(options: ExportOptions, tuned: _Tuned, exported: Path, data: Path) -> "Success":
    from calltune.evaluation.options import AnswerOptions
    from calltune.evaluation.run import EvaluationRun, evaluate
    from calltune.exporting.card import compared
    from calltune.report.progress import progress_of

    asked = AnswerOptions(num_examples=options.num_examples, max_tokens=options.max_tokens)
    models = {"before": (tuned.model, tuned.adapter), "after": (str(exported), None)}
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / f"{name}.json" for name in models]
        _take_over(options.results, files[0])
        for file, (name, (model, adapter)) in zip(files, models.items(), strict=True):
            evaluation = EvaluationRun(model, adapter, data / "test.jsonl", file, asked)
            with progress_of(f"{name} the export", False) as show:
                evaluate(evaluation, tuned.backend, show)
        return compared(*files)


def _take_over(results: Path | None, file: Path) -> None:
    """Lay the answers of an earlier test where a evaluation of these results looks for them."""
    from calltune.evaluation.run import records_beside

    kept = None if results is None else records_beside(results / TUNED_RESULTS)
    if kept is not None and kept.is_file():
        shutil.copyfile(kept, records_beside(file))


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f}"
