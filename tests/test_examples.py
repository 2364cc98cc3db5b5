"""The example tools and the questions to them, which were written from the tools alone."""

from collections import Counter
from pathlib import Path

from calltune.data.readers import recognise
from calltune.evaluation.judge import are_valid
from calltune.files import read_lines
from calltune.tools.python_file import from_python_file
from calltune.types import reference_call

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_every_question_has_an_answer_that_its_tools_take() -> None:
    tools = from_python_file(EXAMPLES / "assistant.py").tools
    by_name = {tool.name: tool for tool in tools}
    named: Counter[str] = Counter()
    n_without_call = 0
    rows = [line.row for line in read_lines(EXAMPLES / "questions.jsonl")]
    for row in rows:
        question = [{"role": "user", "content": row["question"]}]
        whole = {
            "id": row["id"],
            "question": [question],
            "function": [tool.raw for tool in tools],
            "ground_truth": row["ground_truth"],
        }
        (example,) = recognise.parse(whole, "", "bfcl").examples
        calls = tuple(reference_call(each, row["question"]) for each in example.answers)
        assert are_valid(calls, by_name), row
        named.update(call.name for call in calls)
        n_without_call += not calls
    assert len(rows) == 60 and n_without_call == 20
    assert named.keys() == by_name.keys()
    assert min(named.values()) >= 3
