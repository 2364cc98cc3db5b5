import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny

RECIPE = """
[load]
dataset = "mine.jsonl"

[prep]
input_file = "data/training/mine_train_30examples"

[infer]
model = "{model}"
num_examples = 2
max_tokens = 4

[train]
model = "{model}"
iters = 2
num_layers = 1
adapter_path = "adapters"

[test]
adapter_path = "adapters"
num_examples = 2
max_tokens = 4

[analyze]
"""


def quickstart(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "calltune", "quickstart", "--recipe", "mine.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_recipe_runs_every_stage_it_names_and_keeps_what_is_done(
    tmp_path: Path, tiny_gemma: Path
) -> None:
    tiny.write_rows(tmp_path / "mine.jsonl", 30)
    (tmp_path / "mine.toml").write_text(RECIPE.format(model=tiny_gemma))
    first = quickstart(tmp_path)
    assert first.returncode == 0, first.stderr
    commands = [line.split()[2] for line in first.stdout.splitlines() if line.startswith("$ ")]
    assert commands == ["load", "prep", "infer", "train", "test", "analyze"]
    assert "Base against tuned on the same 2 examples" in first.stdout
    assert "Took" in first.stdout.splitlines()[-1]
    results = tmp_path / "data" / "results" / "finetuned_model_test_results.json"
    answers = json.loads(results.read_text())["results"]
    second = quickstart(tmp_path)
    assert second.returncode == 0, second.stderr
    assert "was trained with these options" in second.stdout
    again = json.loads(results.read_text())
    assert again["summary"]["taken_over"] == 2 and again["results"] == answers


def test_a_stage_that_fails_ends_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[prep]\ninput_file = "nowhere"\n[analyze]\n')
    ended = quickstart(tmp_path)
    assert ended.returncode == 1 and "analyze" not in ended.stdout
    first, last = ended.stderr.strip().splitlines()
    assert "No file nowhere" in first and "prep failed" in last


@pytest.mark.parametrize(
    ("text", "message"),
    [("[train\n", "is not TOML"), ("[dance]\nsteps = 3\n", "a table dance, which is not a step")],
)
def test_a_broken_recipe_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    ended = quickstart(tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1 and message in ended.stderr
