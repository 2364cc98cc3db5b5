"""What the decoding benchmark counts."""

from pathlib import Path

import decode_speed
from decode_task import STOCK, Task


def test_the_slow_engine_gets_the_prompt_of_median_length(tmp_path: Path) -> None:
    prompts = [[1] * 5, [2], [3] * 3]
    task = Task(
        prompts, [7, 8, 9], [[4], [5], [6]], [[], [], [{"name": "f"}]], [0], "gemma", "folder"
    )
    task.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task == task.of("calltune")
    assert task.of(STOCK) == Task([[3] * 3], [9], [[6]], [[{"name": "f"}]], [0], "gemma", "folder")


def test_a_line_has_end_to_end_speeds_and_the_answers_that_are_the_same() -> None:
    given = decode_speed._parser().parse_args(["--data", "x"])
    prompts = [[1, 2], [3]]
    rounds = [
        {"seconds": 4.0, "answers": [[7, 8, 9], [7]]},
        {"seconds": 2.0, "answers": [[7, 8, 9], [7]]},
    ]
    expected = {"[1, 2]": [7, 8, 9], "[3]": [8]}
    line = decode_speed._line("mlx_lm", prompts, rounds, expected, given)
    assert line["tokens_per_second"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert line["seconds_per_answer"]["median"] == 1.5
    assert (line["rows"], line["prompt_tokens"], line["generated_tokens"]) == (2, 3, 4)
    assert line["same_answers"] == 1 and line["commit"]
