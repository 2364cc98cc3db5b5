"""What the hostile benchmark counts, and a short run of it."""

import json
from pathlib import Path

import pytest
import serve_fuzz
from serve_fuzz import Sent

from support.hostile_schemas import Hostile

TYPED = {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}}


def test_each_fault_is_told_with_its_schema() -> None:
    schemas = [Hostile("deep", '{"type": "array"}'), Hostile("odd", '{"not": {}}')]
    sent = [Sent(1, 422, TYPED, 0.25), Sent(0, 500, TYPED, 0.5)]

    found = serve_fuzz.verdicts(schemas, sent)

    assert found["verdicts"] == {"refused": 1, "fault": 1} and found["schemas"] == 2
    assert found["by_kind"] == {"deep": {"fault": 1}, "odd": {"refused": 1}}
    (fault,) = found["faults"]
    assert fault["schema"] == '{"type": "array"}' and "status 500" in fault["why"]
    assert found["seconds"]["max"] == 0.5


@pytest.mark.slow
def test_a_short_run_writes_a_line(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    few = ["--hostile", "6", "--ordinary", "20", "--quiet-s", "1"]
    ended = serve_fuzz.main([*few, "--results", str(results), "--logs", str(tmp_path)])
    line = json.loads(results.read_text())
    assert ended == 0 and line["hostile"]["faults"] == []
    assert sum(line["hostile"]["verdicts"].values()) == 6
    assert (
        line["ordinary"]["statuses"] == {"200": 20} and line["ordinary"]["memory_mb"]["first"] > 0
    )
    assert set(line["others"]) == {"before", "meanwhile", "after", "ratio"}
    assert line["others"]["meanwhile"]["statuses"].keys() == {"200"}
