import base64
import json
import random
import re
import subprocess
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from calltune.data.prepared import prepare_example, read_prepared
from calltune.errors import DataError
from calltune.evaluation.compare import compare
from calltune.evaluation.results import Results
from calltune.files import file_digest, write_rows
from calltune.formats import FORMATS
from calltune.report.html import page, write_report
from calltune.schemas.tools import read_tools
from calltune.terminal_text import escape_for_terminal
from calltune.types import AcceptableArgument, Answer, Example, Json, Message, answers_to_json

from support.commands_needed import CHROMIUM, find_command, needs
from support.hostile import HOSTILE, obeyed
from support.tiers import cases
from support.verdicts import verdict

NEEDS_CHROMIUM = needs(CHROMIUM)
ANSWER = Answer("area", {"unit": AcceptableArgument(("m",))})


def record(number: int, is_exact: bool, text: str = "area m") -> dict[str, Json]:
    return {
        "id": f"e{number}",
        "source": f"source/{number % 2}",
        "query": f"The area of {number} fields?",
        "n_tools": 1,
        "expected": answers_to_json((ANSWER,)),
        "text": text,
        "calls": [{"name": "area", "arguments": {"unit": "m" if is_exact else "km"}}],
        "problem": None,
        "verdict": verdict(is_exact),
    }


Document = dict[str, Json]


def document(right: list[bool], adapter: str | None = None, text: str = "area m") -> Document:
    records = [record(number, is_exact, text) for number, is_exact in enumerate(right)]
    return {
        "model": "m",
        "adapter": adapter,
        "format": "gemma",
        "test_set": {"path": "test.jsonl", "sha256": "ab" * 32},
        "results": records,
    }


def read(document: Document) -> Results:
    return Results.from_json(Path("results.json"), document)


def results(right: list[bool], adapter: str | None = None, text: str = "area m") -> Results:
    return read(document(right, adapter, text))


def report(base: Results, tuned: Results) -> str:
    return page(compare(base, tuned), base, tuned)


def data_in(html: str, name: str) -> Json:
    found = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', html, re.S)
    return None if found is None else json.loads(zlib.decompress(base64.b64decode(found[1])))


def examples_in(html: str) -> list[dict[str, Json]]:
    listed: list[dict[str, Json]] = data_in(html, "examples")
    return listed


BASE = [False] * 30 + [True, True]
TUNED = [True] * 12 + [False] * 18 + [True, False]


def test_the_first_screen_says_who_is_better_and_whether_it_is_chance() -> None:
    html = report(results(BASE), results(TUNED, "my-adapter"))
    assert "<h1>Tuning helped.</h1>" in html
    assert "13 of 32 answers are an exact match" in html and "+34 points" in html
    assert "Tuning fixed 12 and broke 1." in html
    assert "McNemar" in html and "95 % interval" in html
    assert "<h1>Tuning made it worse.</h1>" in report(results(TUNED), results(BASE))
    assert "No difference beyond chance." in report(results(BASE), results(BASE))


def test_what_an_answer_costs_is_told_where_the_results_have_it() -> None:
    assert "tokens per answer" not in report(results(BASE), results(TUNED))
    sides = [document(BASE), document(TUNED)]
    for side, tokens in zip(sides, (512, 30), strict=True):
        for one in side["results"]:
            one |= {"generated_tokens": tokens, "seconds": tokens / 100}
    html = report(*map(read, sides))
    assert "<td>512 (median 512)</td><td>30 (median 30)</td>" in html.replace("\xa0", " ")


def test_every_example_is_there_with_what_was_wrong() -> None:
    examples = examples_in(report(results(BASE), results(TUNED)))
    kinds = [example["kind"] for example in examples]
    assert [kinds.count(kind) for kind in ("fixed", "broken", "wrong", "right")] == [12, 1, 18, 1]
    broken = examples[kinds.index("broken")]
    assert broken["tuned"]["wrong"] == 'area.unit: "km" where "m" was right'
    assert broken["base"] == {"text": "area m", "reason": "right", "wrong": ""}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = report(results(BASE), results(TUNED))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert not addresses
    assert "default-src 'none'" in html and "src=" not in html.split("<script", 1)[0]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def tags(html: str) -> list[str]:
    parser = _Tags()
    parser.feed(html)
    return parser.found


def hostile(right: list[bool]) -> Results:
    made = document(right)
    made["model"] = made["adapter"] = made["format"] = HOSTILE
    # Some of it is shown, from its beginning.
    made["test_set"] = {"path": HOSTILE, "sha256": "\x1b\u202e<b>" + HOSTILE}
    for one in made["results"]:
        one["id"] += HOSTILE
        one["query"] = one["text"] = HOSTILE
        one["source"] += HOSTILE
        one["calls"][0]["name"] = HOSTILE
        one["calls"][0]["arguments"] = {HOSTILE: HOSTILE}
        one["expected"][0] = {"name": HOSTILE, "arguments": {HOSTILE: {"values": [HOSTILE]}}}
        one["verdict"]["reason"] = HOSTILE
    return read(made)


def test_what_models_and_datasets_wrote_is_never_markup() -> None:
    usual = report(results(BASE), results(TUNED))
    html = report(hostile(BASE), hostile(TUNED))
    allowed = [tag for tag in tags(html) if tag in ("script", "img", "iframe", "object", "a")]
    assert allowed == [tag for tag in tags(usual) if tag in ("script", "img", "a")]
    assert not obeyed(html) and "49" not in html.split("[/nothing]", 1)[1][:12]
    (example, *_) = examples_in(html)
    assert not obeyed(json.dumps(examples_in(html), ensure_ascii=False))
    assert example["query"].startswith('</script><script>alert("x")</script>')


def test_the_curves_are_those_of_the_adapters_training(tmp_path: Path) -> None:
    lines = [{"step": 1, "train_loss": 1.0, "learning_rate": 1e-4}]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert "How the training went" in report(results(BASE), results(TUNED, str(tmp_path)))
    assert "How the training went" not in report(results(BASE), results(TUNED, "elsewhere"))


def many(count: int) -> tuple[Document, Document]:
    text = "The answer goes on and on. " * 40
    base, tuned = [False] * count, [number % 3 == 0 for number in range(count)]
    return document(base, text=text), document(tuned, text=text)


def tool(rng: random.Random, alphabet: str) -> dict[str, Json]:
    """A tool of 500 to 2,000 letters that is like no other."""
    told = "".join(rng.choices(alphabet, k=rng.randint(450, 1950)))
    return {"name": "area", "description": told, "parameters": {"unit": {"type": "string"}}}


def with_test_set(
    folder: Path, sides: tuple[Document, Document], alphabet: str = "abcdef"
) -> tuple[Results, Results]:
    """Results of these documents, whose rows are written, each with a tool of its own."""
    rng, prompt_format = random.Random(1), FORMATS["gemma"]
    offered = [tool(rng, alphabet) for _ in sides[0]["results"]]
    rows = [
        prepare_example(
            Example(
                one["id"],
                (Message("user", one["query"]),),
                read_tools([offer]).tools,
                (ANSWER,),
                "xlam",
            ),
            prompt_format,
            True,
        ).to_json()
        for one, offer in zip(sides[0]["results"], offered, strict=True)
    ]
    write_rows(folder / "test.jsonl", rows)
    test_set = {"path": str(folder / "test.jsonl"), "sha256": file_digest(folder / "test.jsonl")}
    base, tuned = (read(side | {"test_set": test_set}) for side in sides)
    return base, tuned


def test_the_prompt_of_every_example_is_there(tmp_path: Path) -> None:
    html = report(*with_test_set(tmp_path, (document(BASE), document(TUNED))))
    prompts, rows = data_in(html, "prompts"), read_prepared(tmp_path / "test.jsonl")
    assert len(examples_in(html)) == len(rows) == 32
    for example, places, row in zip(examples_in(html), prompts["rows"], rows, strict=True):
        assert example["id"] == row.id
        assert "".join(prompts["pieces"][place] for place in places) == row.prompt
    assert "only if the test set" not in html and "To keep the page small" not in html


def test_a_test_set_that_is_not_at_hand_is_told(tmp_path: Path) -> None:
    html = report(results(BASE), results(TUNED))
    assert data_in(html, "prompts") is None
    assert "only if the test set is still at its original path, test.jsonl, and unchanged" in html


@pytest.mark.slow
@pytest.mark.parametrize("alphabet", ["abcdefghijklmnopqrstuvwxyz", '世界人民日本語中文字<&"\\'])
def test_5000_examples_with_their_prompts_stay_below_5_mb(tmp_path: Path, alphabet: str) -> None:
    rng = random.Random(2)
    sides = many(5000)
    for side in sides:
        for one in side["results"]:
            one["text"] = one["query"] = "".join(rng.choices(alphabet, k=400))
    base, tuned = with_test_set(tmp_path, sides, alphabet)
    write_report(tmp_path / "report.html", compare(base, tuned), base, tuned)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    html = (tmp_path / "report.html").read_text("utf-8")
    assert len(examples_in(html)) == len(data_in(html, "prompts")["rows"]) == 5000
    assert "queries and answers are truncated to" in html
    assert "tools of prompts are truncated to" in html
    assert "more characters)" in examples_in(html)[0]["query"]


def opened(path: Path, view: str = "") -> str:
    """The page as Chromium has it once its scripts have run, which must not complain."""
    browser = find_command(CHROMIUM)
    assert browser is not None
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    ended = subprocess.run(
        [
            *command,
            f"--user-data-dir={path.parent / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"file://{path}{view}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not [line for line in ended.stderr.splitlines() if "CONSOLE" in line], ended.stderr
    return ended.stdout


@NEEDS_CHROMIUM
@pytest.mark.parametrize(
    ("view", "found", "shown"),
    [
        ("", 32, 32),
        ("#kind=fixed", 12, 12),
        ("#kind=wrong&q=of 29 fields", 1, 1),
        ("#q=nothing like it", 0, 0),
        # What is shown is searched, quotation marks and all; the names of the data's keys are not.
        ('#kind=broken&q="km" where', 1, 1),
        ("#q=tuned", 0, 0),
        ("#kind=nonsense", 32, 32),
    ],
)
def test_filters_and_search_show_what_they_should(
    tmp_path: Path, view: str, found: int, shown: int
) -> None:
    file = tmp_path / "report.html"
    base, tuned = results(BASE), results(TUNED)
    write_report(file, compare(base, tuned), base, tuned)
    html = opened(file, view.replace(" ", "%20"))
    assert f'data-found="{found}"' in html
    assert html.count("<details") == shown
    assert ('id="none" hidden' in html) == (found > 0)


@NEEDS_CHROMIUM
@pytest.mark.both_tiers
@pytest.mark.parametrize("count", [1, cases(300, 5000)])
def test_one_example_and_thousands_open_without_a_complaint(tmp_path: Path, count: int) -> None:
    file = tmp_path / "report.html"
    base, tuned = with_test_set(tmp_path, many(count))
    write_report(file, compare(base, tuned), base, tuned)
    html = opened(file)
    assert f'data-found="{count}"' in html and html.count("<details") == min(count, 50)


@NEEDS_CHROMIUM
def test_hostile_text_opens_as_text(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    base, tuned = hostile(BASE), hostile(TUNED)
    write_report(file, compare(base, tuned), base, tuned)
    html = opened(file)
    assert "<img" not in html and html.count("<script") == 2


def test_names_in_every_script_are_drawn_without_a_warning() -> None:
    sides = document(BASE), document(TUNED)
    for side in sides:
        for number, one in enumerate(side["results"]):
            one["source"] = ("東京", "😀")[number % 2]
    html = report(*map(read, sides))
    assert "東京 (16)" in html and "😀 (16)" in html


def test_answers_of_100_kb_are_cut_and_counted(tmp_path: Path) -> None:
    base, tuned = results(BASE, text="x" * 100_000), results(TUNED, text="y" * 100_000)
    write_report(tmp_path / "report.html", compare(base, tuned), base, tuned)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert len(html) < 500_000
    assert examples_in(html)[0]["base"]["text"].endswith("x… (80,000 more characters)")


@pytest.mark.parametrize(
    "line", ['{"train_loss": 1.0}', '{"step": "a", "train_loss": []}', '{"step": 1, "train', "\xff"]
)
def test_curves_of_a_damaged_file_are_told(tmp_path: Path, line: str) -> None:
    good = '{"step": 1, "train_loss": 1.0, "learning_rate": 1e-4}\n'
    (tmp_path / "metrics.jsonl").write_text(good + line + "\n", "latin-1")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        report(results(BASE), results(TUNED, str(tmp_path)))


OPENS_THE_FIRST_PROMPT = """<script>
const waiting = setInterval(() => {
  const card = document.querySelector("#list > details");
  if (card) card.open = true;
  const prompt = document.querySelector("details.prompt");
  if (prompt) prompt.open = true;
  if (prompt) clearInterval(waiting);
}, 20);
</script>"""


@NEEDS_CHROMIUM
def test_a_prompt_opens_as_the_text_that_the_model_saw(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    sides = document(BASE), document(TUNED)
    base, tuned = with_test_set(tmp_path, sides, "abc<&>\u202e")
    write_report(file, compare(base, tuned), base, tuned)
    file.write_text(file.read_text("utf-8").replace("</body>", OPENS_THE_FIRST_PROMPT), "utf-8")
    html = opened(file)
    shown = re.search(r'<details class="wide prompt".*?<pre class="">(.*?)</pre>', html, re.S)
    assert shown is not None
    (row, *_) = read_prepared(tmp_path / "test.jsonl")
    text = unescape(re.sub(r"</?span[^>]*>", "", shown[1]))
    assert text == escape_for_terminal(row.prompt, 10_000)
    assert shown[1].count('class="tool"') == 1
