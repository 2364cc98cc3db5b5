"""The model card of an export: its data, training, results, usage and licences.

It says what calltune's own records say, and says so where there are none. Source of the front
matter: https://huggingface.co/docs/hub/model-cards.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from calltune.downloads import cache_folder
from calltune.errors import DataError, OptionError
from calltune.evaluation.compare import compare
from calltune.evaluation.metrics import Rate, Summary, summarise
from calltune.evaluation.results import BASE_RESULTS, TUNED_RESULTS, read_results
from calltune.files import file_digest, read_json
from calltune.formats import Format
from calltune.models.loading import CONFIG, WEIGHTS
from calltune.models.packaged import PACKAGED, PackagedModel
from calltune.terminal_text import escape_line
from calltune.types import Json

_HUB_LIBRARIES = {"mlx": "mlx", "peft": "peft", "adapter": "mlx"}
_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "Gemma Terms of Use": "gemma"}
"""The hub's names of licences."""
_DATA_LICENCES = {
    "bfcl-eval": "BFCL, Apache-2.0",
    "xlam-function-calling-60k": "xlam-function-calling-60k, CC-BY-4.0, as its page says",
}
"""By the name of a dataset, with which `calltune load` begins the name of its file."""
_WHAT = {
    "peft": "This is the adapter alone, in the layout of Hugging Face's PEFT.",
    "adapter": "This is the adapter alone, for calltune and mlx_lm.",
    "gguf": "The adapter is in the weights: this is a whole model in one GGUF file.",
    "mlx": "The adapter is in the weights: this is a whole model.",
}


class Subject(NamedTuple):
    """What a card is about."""

    to: str
    """What it was exported to: "mlx", "peft", "adapter" or "gguf"."""
    name: str
    """Of the folder, or of the repository where it goes to one."""
    reference: str
    """The base model's, as the user gave it."""
    prompt_format: Format
    adapter: Path
    data: Path | None
    """The folder of prepared rows; by default the one that the adapter was trained on."""
    results: Path | None
    """The folder of test results."""
    kept: str
    """What was measured of the export, in sentences; "" where nothing was."""


class ResultColumn(NamedTuple):
    """One model's column of the table of results."""

    name: str
    success: str
    ast: str


def card(subject: Subject) -> str:
    """The card in Markdown, with the front matter that the hub reads.

    Raises:
        DataError: the results are missing or broken.
        OptionError: the results are of another adapter.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calltune.exporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    config = _json(subject.adapter / CONFIG)
    prepared = _prepared(subject, config)
    text = environment.get_template("card.md.j2").render(
        front=_front_matter(subject),
        to=subject.to,
        name=subject.name.rpartition("/")[2],
        repository=subject.name,
        base=_base(subject.reference),
        what=_WHAT[subject.to],
        data=_data(prepared),
        training=_training(config),
        prompt_format=subject.prompt_format.name,
        has_parser=subject.prompt_format.tool_parser is not None,
        tested=_tested(subject),
        is_held_out=_is_held_out(subject, prepared),
        kept=subject.kept,
        base_licence=_base_licence(subject.reference),
        data_licence=_data_licence(Path(prepared.get("input", "")).name),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def copy_licence(reference: str, folder: Path) -> None:
    """Put the notice and terms that the base model's licence asks to pass on into a folder."""
    packaged = _packaged(reference)
    if packaged is None or not packaged.notice:
        return
    (folder / "NOTICE").write_text(f"{packaged.notice}\n", "utf-8")
    terms = cache_folder() / "models" / Path(packaged.terms[1]).name if packaged.terms else None
    if terms is not None and terms.is_file():
        shutil.copyfile(terms, folder / terms.name)


def _front_matter(subject: Subject) -> str:
    from huggingface_hub import ModelCardData

    packaged = _packaged(subject.reference)
    kind = ["lora"] if subject.to in ("peft", "adapter") else []
    data = ModelCardData(
        base_model=subject.reference if _is_hub_id(subject.reference) else None,
        library_name=_HUB_LIBRARIES.get(subject.to),
        license=_HUB_LICENCES.get(packaged.licence) if packaged else None,
        pipeline_tag="text-generation",
        tags=["function-calling", "tool-calling", "calltune", *kind]
        + ([subject.to] if subject.to != "adapter" else ["mlx"]),
    )
    return str(data.to_yaml())


def _is_hub_id(reference: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", reference)) and not Path(reference).exists()


def _base(reference: str) -> str:
    if _is_hub_id(reference):
        return f"[{reference}](https://huggingface.co/{reference})"
    # A folder's path says nothing to others.
    name = reference if reference.startswith("pip:") else Path(reference).name
    return f"`{escape_line(name)}`"


def _prepared(subject: Subject, config: dict[str, Json]) -> dict[str, Json]:
    """prep.json of the rows that the adapter was trained on; empty where that is not certain."""
    named = config.get("data")
    folder = subject.data or (Path(named) if isinstance(named, str) else None)
    if folder is None:
        return {}
    prepared = _json(folder / "prep.json")
    trained_on = _run_record(subject.adapter).get("data_sha256", {}).get("train.jsonl")
    is_certain = trained_on and prepared.get("sha256", {}).get("train.jsonl") == trained_on
    return prepared if is_certain else {}


def _run_record(adapter: Path) -> dict[str, Json]:
    """run.json of the training: beside the adapter, or above the best one."""
    return _json(adapter / "run.json") or _json(adapter.resolve().parent / "run.json")


def _data(prepared: dict[str, Json]) -> str:
    if not prepared:
        return "There were no records of its training data beside the adapter."
    counts = prepared["counts"]
    name = escape_line(Path(prepared["input"]).name, 100)
    return (
        f"{counts['train']} examples of `{name}`; {counts['valid']} more were for validation and "
        f"{counts['test']} for tests."
    )


def _training(config: dict[str, Json]) -> str:
    if "learning_rate" not in config:
        return ""
    length = (
        f"{config['epochs']} epochs" if config.get("epochs") else f"{config.get('iters')} steps"
    )
    layers = config.get("num_layers", -1)
    return (
        f"Fine-tuned with {config.get('fine_tune_type', 'lora')} on "
        f"{'all layers' if layers == -1 else f'the upper {layers} layers'}: {length} of "
        f"{config.get('batch_size')} rows, learning rate {config['learning_rate']:g}."
    )


def _tested(subject: Subject) -> list[ResultColumn]:
    if subject.results is None:
        return []
    tuned = read_results(subject.results / TUNED_RESULTS)
    if tuned.adapter_digest != file_digest(subject.adapter / WEIGHTS):
        raise OptionError(
            f"{tuned.path} is of another adapter than {subject.adapter}; test this one with "
            "calltune test, or leave --results out"
        )
    base = subject.results / BASE_RESULTS
    if base.is_file():
        try:
            both = compare(read_results(base), tuned)
        except DataError:
            pass  # Of other test rows: the two do not belong in one table.
        else:
            return [_column("base", both.base.summary), _column("tuned", both.tuned.summary)]
    return [_column("tuned", summarise(list(tuned.records.values())))]


def _is_held_out(subject: Subject, prepared: dict[str, Json]) -> bool:
    """Whether the tested rows are the ones that prep held out from the training rows."""
    if subject.results is None:
        return False
    digest = read_results(subject.results / TUNED_RESULTS).test_digest
    return bool(prepared.get("sha256", {}).get("test.jsonl") == digest)


def _column(name: str, summary: Summary) -> ResultColumn:
    return ResultColumn(name, _rate(summary.success), _rate(summary.ast))


def _rate(rate: Rate) -> str:
    share, low, high = (f"{100 * each:.0f}" for each in (rate.rate, rate.low, rate.high))
    return f"{rate.count} of {rate.of}, {share} % ({low} to {high} %)"


def _base_licence(reference: str) -> str:
    if packaged := _packaged(reference):
        return " ".join(filter(None, [f"{packaged.licence}.", packaged.notice]))
    return "not known here; see the base model"


def _data_licence(file_name: str) -> str:
    found = [text for start, text in _DATA_LICENCES.items() if file_name.startswith(f"{start}_")]
    return found[0] if found else "not known here; see the data"


def _packaged(reference: str) -> PackagedModel | None:
    """The packaged model of a reference such as pip:gemma3-270m; None where it is another one."""
    name = reference.removeprefix("pip:")
    return PACKAGED.get(name) if name != reference else None


def _json(path: Path) -> dict[str, Json]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
