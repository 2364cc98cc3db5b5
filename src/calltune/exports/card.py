"""The model card: what an export was made of, how it did, how to call it, and licences.

It tells what calltune's own records say, and says so where there are none.
"""

import re
from pathlib import Path
from typing import NamedTuple

from calltune.calls import Json
from calltune.errors import DataError, OptionError
from calltune.exports.licences import base_licence, data_licence, hub_licence
from calltune.exports.usage import usage
from calltune.formats import Format
from calltune.jsonl import file_digest, read_json
from calltune.models.load import CONFIG, WEIGHTS
from calltune.score.compare import compare
from calltune.score.metrics import summarise
from calltune.score.results import BASE_RESULTS, TUNED_RESULTS, Results, read_results
from calltune.visible import in_one_line

"""What `calltune infer` and `calltune test` call their results."""

_LIBRARIES = {"mlx": "mlx", "peft": "peft", "adapter": "mlx"}
_WHAT = {
    "peft": "This is the adapter alone, in the layout of Hugging Face's PEFT.",
    "adapter": "This is the adapter alone, for calltune and mlx_lm.",
    "gguf": "The adapter is in the weights: this is a whole model in one GGUF file.",
    "mlx": "The adapter is in the weights: this is a whole model.",
}


class Subject(NamedTuple):
    """What a card is about."""

    to: str
    name: str
    """Of the folder, or of the repository where it goes to one."""
    reference: str
    """The base model's."""
    family: Format
    adapter: Path
    data: Path | None
    """Prep's folder; the one that the adapter was trained on unless given."""
    results: Path | None
    kept: str
    """What was measured of the export, in sentences; "" where nothing was."""


class Side(NamedTuple):
    """One model's column of results."""

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
        loader=PackageLoader("calltune.exports", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    config = _json(subject.adapter / CONFIG)
    prepared = _prepared(subject, config)
    text = environment.get_template("card.md.j2").render(
        front=_front(subject),
        name=subject.name.rpartition("/")[2],
        base=_base(subject.reference),
        what=_WHAT[subject.to],
        data=_data(prepared),
        training=_training(config),
        family=subject.family.name,
        tested=_tested(subject),
        is_held_out=_is_held_out(subject, prepared),
        kept=subject.kept,
        usage=usage(subject.to, subject.name, subject.family),
        base_licence=base_licence(subject.reference),
        data_licence=data_licence(Path(prepared.get("input", "")).name),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _front(subject: Subject) -> str:
    from huggingface_hub import ModelCardData

    kind = ["lora"] if subject.to in ("peft", "adapter") else []
    data = ModelCardData(
        base_model=subject.reference if _is_hub_id(subject.reference) else None,
        library_name=_LIBRARIES.get(subject.to),
        license=hub_licence(subject.reference),
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
    return f"`{in_one_line(name)}`"


def _prepared(subject: Subject, config: dict[str, Json]) -> dict[str, Json]:
    """What prep says of the rows that the adapter was trained on; nothing where it is not sure."""
    named = config.get("data")
    folder = subject.data or (Path(named) if isinstance(named, str) else None)
    if folder is None:
        return {}
    prepared = _json(folder / "prep.json")
    run = _run_record(subject.adapter)
    trained_on = run.get("data_sha256", {}).get("train.jsonl")
    is_it = trained_on and prepared.get("sha256", {}).get("train.jsonl") == trained_on
    return prepared if is_it else {}


def _run_record(adapter: Path) -> dict[str, Json]:
    """What train says of its run: beside the adapter, or above the best one."""
    return _json(adapter / "run.json") or _json(adapter.resolve().parent / "run.json")


def _data(prepared: dict[str, Json]) -> str:
    if not prepared:
        return "The records of its training data did not lie beside the adapter."
    counts = prepared["counts"]
    name = in_one_line(Path(prepared["input"]).name, 100)
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


def _tested(subject: Subject) -> list[Side]:
    if subject.results is None:
        return []
    tuned = read_results(subject.results / TUNED_RESULTS)
    tested = tuned.document.get("identity", {}).get("adapter_sha256")
    if tested != file_digest(subject.adapter / WEIGHTS):
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
            return [_side("base", both.base.summary), _side("tuned", both.tuned.summary)]
    return [_side("tuned", _summary(tuned))]


def _is_held_out(subject: Subject, prepared: dict[str, Json]) -> bool:
    """Whether the tested rows are the ones that prep kept from the training rows."""
    if subject.results is None:
        return False
    digest = read_results(subject.results / TUNED_RESULTS).test_digest
    return bool(prepared.get("sha256", {}).get("test.jsonl") == digest)


def _summary(results: Results) -> dict[str, Json]:
    return summarise(list(results.records.values()))


def _side(name: str, summary: dict[str, Json]) -> Side:
    return Side(name, _rate(summary["success"]), _rate(summary["ast"]))


def _rate(rate: dict[str, Json]) -> str:
    shares = [f"{100 * rate[key]:.0f}" for key in ("rate", "low", "high")]
    return f"{rate['count']} of {rate['of']}, {shares[0]} % ({shares[1]} to {shares[2]} %)"


def _json(path: Path) -> dict[str, Json]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
