"""The export command: a tuned model as other programs take it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calltune.errors import OptionError
from calltune.files import atomic_folder, write_json
from calltune.formats import FORMATS
from calltune.models.options import (
    DEFAULT_ADAPTER,
    AdapterOption,
    BaseModelOption,
    DeviceOption,
    MaxTokensOption,
    NumExamplesOption,
    check_minimums,
    check_num_examples,
)
from calltune.terminal_text import Heartbeat

if TYPE_CHECKING:
    from calltune.exporting.regression import Regression
    from calltune.exporting.targets import TunedModel
    from calltune.models.backend import Backend

EXPORT_NAME = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions(
    DeviceOption, MaxTokensOption, NumExamplesOption, BaseModelOption, AdapterOption
):
    """Options of `calltune export`."""

    to: Literal["mlx", "peft", "adapter", "gguf"] = "mlx"
    """mlx: a model folder without an adapter, which mlx_lm and transformers load; peft: the adapter
    for Hugging Face's PEFT; adapter: one of PEFT for calltune and mlx_lm; gguf: one file, for
    llama.cpp and Ollama."""
    adapter_path: Path = DEFAULT_ADAPTER
    """Folder of the adapter, mlx_lm's or PEFT's."""
    output: Path | None = None
    """The folder to write, which must not exist yet; unless given, exports/ADAPTER-TO."""
    bits: Literal["auto", "base", "4", "8", "dense", "float32"] = "auto"
    """How the weights are stored. For mlx, base: as the base model has them; auto: the same, but
    where rounding would lose what the adapter learnt, the layers that it changes in 8 bits or
    dense; 4, 8: quantised; dense: in the base model's float type; float32: what runs fast on CPUs.
    For gguf, auto and dense: float16; 8: q8_0; float32."""
    format: str | None = None
    """Prompt format: gemma or chatml; unless given, the one that the adapter was trained with."""
    data: Path | None = None
    """Folder with the test.jsonl that prep wrote: its rows are answered before and after."""
    results: Path | None = None
    """Folder with the results of calltune test, for the model card; answers found there are not
    generated again."""
    push: str | None = None
    """A repository on the model hub, OWNER/NAME, to upload the folder to."""
    private: bool = False
    """With --push: the repository is for its owner only."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.format is not None and self.format not in FORMATS:
            raise OptionError(f"No format {self.format}; choose one of {', '.join(FORMATS)}")
        check_num_examples(self.num_examples)
        check_minimums(self, max_tokens=1)
        if self.private and self.push is None:
            raise OptionError("--private is for --push; give the repository with --push OWNER/NAME")
        if self.bits != "auto" and self.to not in ("mlx", "gguf"):
            raise OptionError(f"--bits is for --to mlx and gguf; leave it out with --to {self.to}")
        if self.bits in ("4", "base") and self.to == "gguf":
            raise OptionError(
                f"--bits {self.bits} is not written for gguf; use 8, or quantise the file with "
                "llama.cpp"
            )


def run(options: ExportOptions) -> Path:
    """Write the exported folder, whole or not at all, and say what it kept; the folder.

    Raises:
        AccessDenied: there is no token for the hub, or it refuses this one.
        AdapterMismatch: the adapter was trained for another model.
        ModelNotFound: no such model or adapter.
        OptionError: the folder exists already, or the model has the tokens of no prompt format.
        OutputError: it cannot be written.
    """
    from calltune.exporting.push import check_name, check_token, push
    from calltune.models.backend import choose, print_backend
    from calltune.provenance import describe, options_to_json

    if options.push is not None:
        check_name(options.push)
        check_token()
    output = options.output or _default_output(options)
    if output.exists():
        raise OptionError(f"{output} exists already; remove it, or give another --output")
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(output) as beside:
        backend = choose(options.device, is_step_small=True)
        print_backend(backend)

        from calltune.exporting.targets import WRITERS, finer_bits, open_tuned

        tuned = open_tuned(options.adapter_path, options.model, options.format, Path(scratch))
        with Heartbeat("writing the export"):
            written = WRITERS[options.to](tuned, options.bits, beside)
        facts, advice = written.facts, written.advice
        for sentence in facts.get("in_words", []):
            print(sentence)
        if options.to == "mlx" and options.data is not None:
            found = _regression(options, tuned, beside, backend)
            print(found.describe())
            facts["success"] = found.to_json()
            facts["in_words"].append(found.describe())
            advice = finer_bits(facts["bits"], beside) if found.is_worse else ""
        if advice:
            print(f"To lose less, export with {advice}")
        _write_card(options, tuned, output, beside, " ".join(facts.get("in_words", [])))
        about = {"options": options_to_json(options), "model": tuned.model}
        about |= {"format": tuned.prompt_format.name, **facts, **describe()}
        write_json(beside / EXPORT_NAME, about)
    print(f"Wrote {output} ({_megabytes(output)} MB)")
    if options.push is not None:
        print(f"Uploaded to {push(output, options.push, options.private)}")
    return output


def _default_output(options: ExportOptions) -> Path:
    # A name such as "." has none of its own.
    adapter = options.adapter_path.resolve()
    name = f"{adapter.parent.name}-best" if adapter.name == "best" else adapter.name
    bits = "" if options.bits == "auto" else f"-{options.bits}"
    return Path("exports") / f"{name}-{options.to}{bits}"


def _regression(
    options: ExportOptions, tuned: "TunedModel", exported: Path, backend: "Backend"
) -> "Regression":
    from calltune.evaluation.options import AnswerOptions
    from calltune.exporting.regression import measure_regression
    from calltune.report.progress import progress_of

    assert options.data is not None
    return measure_regression(
        tuned,
        exported,
        options.data / "test.jsonl",
        AnswerOptions(num_examples=options.num_examples, max_tokens=options.max_tokens),
        backend,
        lambda title: progress_of(title, False),
        options.results,
    )


def _write_card(
    options: ExportOptions, tuned: "TunedModel", output: Path, folder: Path, kept: str
) -> None:
    from calltune.exporting.card import Subject, card, copy_licence

    subject = Subject(
        to=options.to,
        name=options.push or output.name,
        reference=tuned.model,
        prompt_format=tuned.prompt_format,
        adapter=tuned.adapter,
        data=options.data,
        results=options.results,
        kept=kept,
    )
    (folder / "README.md").write_text(card(subject), "utf-8")
    copy_licence(tuned.model, folder)


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f}"
