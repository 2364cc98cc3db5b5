"""The model card: what an export was made of, how it did, how to call it, and licences.

It tells what calltune's own records say, and says so where there are none.

How to call what was exported, for its model card.

Licences of what an export was made of, as far as calltune knows them.

What a tuned model gets right before and after it is exported, on the same test rows.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from calltune.downloads import cache_folder
from calltune.errors import DataError, OptionError
from calltune.evaluation.compare import compare
from calltune.evaluation.metrics import summarise
from calltune.evaluation.results import (
    BASE_RESULTS,
    TUNED_RESULTS,
    Results,
    read_results,
)
from calltune.files import file_digest, read_json
from calltune.formats import Format
from calltune.models.loading import CONFIG, WEIGHTS
from calltune.models.packaged import PACKAGED, PackagedModel
from calltune.terminal_text import escape_line
from calltune.types import Json

_OF_THE_HUB = {"Apache-2.0": "apache-2.0", "Gemma Terms of Use": "gemma"}
"""The hub's names of licences."""
_OF_DATA = {
    "bfcl-eval": "BFCL, Apache-2.0",
    "xlam-function-calling-60k": "xlam-function-calling-60k, CC-BY-4.0, as its page says",
}
"""By the name of a dataset, with which `calltune load` begins the name of its file."""


def hub_licence(reference: str) -> str | None:
    """The hub's name of a base model's licence."""
    packaged = _packaged(reference)
    return _OF_THE_HUB.get(packaged.licence) if packaged else None


def base_licence(reference: str) -> str:
    """What a card says of a base model's licence."""
    if packaged := _packaged(reference):
        return " ".join(filter(None, [f"{packaged.licence}.", packaged.notice]))
    return "not known here; see the base model"


def data_licence(file_name: str) -> str:
    """What a card says of the licence of rows that load wrote to a file of this name."""
    found = [told for start, told in _OF_DATA.items() if file_name.startswith(f"{start}_")]
    return found[0] if found else "not known here; see the data"


def pass_on(reference: str, folder: Path) -> None:
    """Put into a folder what the base model's terms ask to go along with it."""
    packaged = _packaged(reference)
    if packaged is None or not packaged.notice:
        return
    (folder / "NOTICE").write_text(f"{packaged.notice}\n", "utf-8")
    terms = cache_folder() / "models" / Path(packaged.terms[1]).name if packaged.terms else None
    if terms is not None and terms.is_file():
        shutil.copyfile(terms, folder / terms.name)


def _packaged(reference: str) -> PackagedModel | None:
    name = reference.removeprefix("pip:")
    return PACKAGED.get(name) if name != reference else None


_CALLTUNE = """\
With calltune, from the shell and from Python:

```bash
calltune call "Weather in Rome?" --tools tools.json {flags}
calltune serve {flags}   # an endpoint like OpenAI's
```

```python
import calltune

caller = calltune.Caller({arguments})
calls = caller.call("Weather in Rome?", [get_weather])
```"""

_SERVER = """
mlx_lm's own server answers with `tool_calls`, too:

```bash
python -m mlx_lm server --model {name}
```"""

_SERVER_TEXT = """
mlx_lm's own server (`python -m mlx_lm server --model {name}`) takes `tools`, but has no parser for
this family's calls: they come in the text of the answer, as a fenced JSON list."""

_PEFT = """\
With transformers and PEFT, prompts written by `chat_template.jinja`:

```python
from pathlib import Path

from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("BASE MODEL")
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Weather in Rome?"}}],
    tools=[...],
    chat_template=Path("chat_template.jinja").read_text(),
    add_generation_prompt=True,
    return_dict=True,
    return_tensors="pt",
)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0]))
```

With calltune: `calltune export --to adapter --adapter-path {name}`."""

_GGUF = """\
With llama.cpp's server, `llama-server --jinja -m FILE.gguf`, or with Ollama by the Modelfile."""


def usage(to: str, name: str, prompt_format: Format) -> str:
    """Markdown: what to type for what was exported as `to`, by the name of its folder or repo."""
    if to == "peft":
        return _PEFT.format(name=name)
    if to == "gguf":
        return _GGUF
    option, argument = ("--model", "") if to == "mlx" else ("--adapter-path", "adapter=")
    ours = _CALLTUNE.format(flags=f"{option} {name}", arguments=f'{argument}"{name}"')
    if to == "adapter":
        return ours
    theirs = _SERVER if prompt_format.tool_parser else _SERVER_TEXT
    return f"{ours}\n{theirs.format(name=name)}"


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
    prompt_format: Format
    adapter: Path
    data: Path | None
    """Prep's folder; the one that the adapter was trained on unless given."""
    results: Path | None
    kept: str
    """What was measured of the export, in sentences; "" where nothing was."""


class ResultColumn(NamedTuple):
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
        loader=PackageLoader("calltune.exporting", "."),
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
        prompt_format=subject.prompt_format.name,
        tested=_tested(subject),
        is_held_out=_is_held_out(subject, prepared),
        kept=subject.kept,
        usage=usage(subject.to, subject.name, subject.prompt_format),
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
    return f"`{escape_line(name)}`"


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


def _side(name: str, summary: dict[str, Json]) -> ResultColumn:
    return ResultColumn(name, _rate(summary["success"]), _rate(summary["ast"]))


def _rate(rate: dict[str, Json]) -> str:
    shares = [f"{100 * rate[key]:.0f}" for key in ("rate", "low", "high")]
    return f"{rate['count']} of {rate['of']}, {shares[0]} % ({shares[1]} to {shares[2]} %)"


def _json(path: Path) -> dict[str, Json]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


class Success(NamedTuple):
    """Two models on the same test rows, judged as `calltune test` judges."""

    before: dict[str, Json]
    """Every call right, with the adapter on its base: count, of, rate, low, high."""
    after: dict[str, Json]
    """The same for the exported model."""
    n_same: int
    """Answers that are the same, letter for letter."""
    p_value: float
    """How often chance alone would part the two at least this far: McNemar's exact test."""

    @property
    def fell(self) -> bool:
        """Whether the exported model gets fewer right."""
        return bool(self.after["count"] < self.before["count"])

    def describe(self) -> str:
        """What came of it in a sentence."""
        before, after = self.before, self.after
        return (
            f"Every call right: {before['count']} of {before['of']} with the adapter, "
            f"{after['count']} of {after['of']} exported; {self.n_same} answers are the same."
        )


def compared(before: Path, after: Path) -> Success:
    """What the results files of the two say.

    Raises:
        DataError: they are not of the same test rows.
    """
    one, other = read_results(before), read_results(after)
    found = compare(one, other)
    return Success(
        before=found.base.summary["success"],
        after=found.tuned.summary["success"],
        n_same=sum(one.records[id]["text"] == other.records[id]["text"] for id in one.records),
        p_value=found.p_value,
    )
