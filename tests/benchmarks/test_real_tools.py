"""What the benchmark of real lists takes for well, and how it shows it."""

from typing import Any

import real_tools

ROW: dict[str, Any] = {
    "list": "shop",
    "tools": 2,
    "bytes": 1400,
    "read_s": 0.5,
    "notes": 0,
    "compile_s": 0.1,
    "held": 1,
    "loose": [],
    "left_out": {"contains": 3, "not": 1},
    "answer_s": 2.0,
    "status": 200,
    "called": "price",
    "valid": True,
    "note": "",
}


def test_a_list_is_well_where_it_was_read_compiled_and_answered() -> None:
    assert real_tools.is_well(ROW)
    for change in ({"tools": 0}, {"loose": ["price"]}, {"status": 422}, {"valid": False}):
        assert not real_tools.is_well(ROW | change)


def test_the_table_has_a_row_for_each_list() -> None:
    refused = ROW | {"called": "", "status": 422, "valid": False, "note": "too large"}
    _, _, row, other = real_tools.table([ROW, refused]).splitlines()
    assert row == ("| shop | 2 | 1 | 0.5 s | 0 | 0.1 s | 1 | contains 3; not 1 | 2.0 s | price |")
    assert other.endswith("| status 422 ✗; too large |")
