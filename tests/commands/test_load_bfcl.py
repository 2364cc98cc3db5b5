import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from calltune.commands.load import LoadOptions, run
from calltune.data.readers.recognise import parse
from calltune.data.sources import bfcl
from calltune.errors import DataError
from calltune.schemas.tools import UnusableRow
from calltune.types import reference_call

SIZES = {"simple_python": 6, "multiple": 3, "live_simple": 3, "irrelevance": 2}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for category, size in SIZES.items():
            ids = [f"{category}_{n}" for n in range(size)]
            questions = [{"id": i, "question": [], "function": []} for i in ids]
            # The golds stand in another order, so only the id can join them.
            golds = [{"id": i, "ground_truth": [{i: {}}]} for i in reversed(ids)]
            name = f"BFCL_v4_{category}.json"
            archive.writestr(f"bfcl_eval/data/{name}", "\n".join(map(json.dumps, questions)))
            if category != "irrelevance":
                archive.writestr(
                    f"bfcl_eval/data/possible_answer/{name}", "\n".join(map(json.dumps, golds))
                )
    monkeypatch.setattr(bfcl, "fetch", lambda name: path)


@pytest.mark.usefixtures("wheel")
def test_each_question_gets_the_ground_truth_of_its_id() -> None:
    for row in bfcl.rows("simple_python", None):
        assert row["ground_truth"] == [{row["id"]: {}}]


@pytest.mark.usefixtures("wheel")
def test_rows_of_irrelevant_tools_have_no_ground_truth() -> None:
    assert all("ground_truth" not in row for row in bfcl.rows("irrelevance", None))


@pytest.mark.usefixtures("wheel")
def test_each_category_gives_its_share() -> None:
    rows = list(bfcl.rows("simple_python+multiple+live_simple", 7))
    counts = Counter(row["id"].rsplit("_", 1)[0] for row in rows)
    assert counts == {"simple_python": 3, "multiple": 2, "live_simple": 2}
    assert len(list(bfcl.rows("simple_python+multiple", 99))) == 9


@pytest.mark.usefixtures("wheel")
def test_an_unknown_category_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no category simple; use .*simple_python.*irrelevance"):
        run(LoadOptions(dataset="pip:bfcl-eval", split="simple", output_dir=tmp_path))


@pytest.mark.real
def test_the_real_rows_are_2351_and_nearly_all_can_be_used(tmp_path: Path) -> None:
    path = run(LoadOptions(dataset="pip:bfcl-eval", output_dir=tmp_path))
    assert path.name == "bfcl-eval_train_2351examples"
    n_with_one_message = 0
    unusable: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        row = json.loads(line)
        n_with_one_message += len(row["question"][0]) == 1
        try:
            parsed = parse(row, "r")
        except UnusableRow as error:
            unusable[error.reason] += 1
            continue
        notes.update(note.split(" (")[0] for note in parsed.notes)
        for answer in parsed.examples[0].answers:
            reference_call(answer, parsed.examples[0].query)
    assert n_with_one_message == 2302
    # An integer or null among the texts that a `string` may be.
    assert notes == {"values of enum are of another type than type": 49}
    assert unusable == {
        "argument the tool does not have": 4,
        "argument without a list of acceptable values": 2,
    }
