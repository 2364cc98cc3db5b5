import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from calltune.batches import (
    PreparedRow,
    TokenRow,
    check_markers,
    collate,
    epoch,
    in_order,
    prompt_tokens,
    read_prepared,
    tokenize,
)
from calltune.errors import DataError, OptionError
from calltune.formats import FORMATS

GEMMA = FORMATS["gemma"]


def prepared(prompt: str, completion: str, id: str = "a") -> PreparedRow:
    return PreparedRow(id, prompt + completion, len(prompt), "gemma", {})


def rows_of(lengths: list[int]) -> list[TokenRow]:
    rows = []
    for index, length in enumerate(lengths):
        tokens = range(1000 * index, 1000 * index + length)
        rows.append(TokenRow(str(index), tuple(tokens), length // 2))
    return rows


def test_bos_stands_once_whether_or_not_the_text_has_it(tiny_gemma: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gemma)
    with_bos = prompt_tokens(tokenizer, "<bos>hi", GEMMA)
    assert with_bos == prompt_tokens(tokenizer, "hi", GEMMA)
    assert with_bos.count(tokenizer.bos_token_id) == 1


def test_the_completion_and_its_end_tokens_are_trained_on(tiny_gemma: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gemma)
    row = tokenize([prepared("<bos>what?", "this<end_of_turn><eos>")], tokenizer).rows[0]
    assert tokenizer.decode(row.tokens[row.completion_start :]) == "this<end_of_turn><eos>"
    assert tokenizer.decode(row.tokens[: row.completion_start]) == "<bos>what?"


def test_a_row_that_is_too_long_is_left_out_whole_and_named(tiny_gemma: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gemma)
    short, long = prepared("<bos>a", "b", "short"), prepared("<bos>a", "b" * 50, "long")
    tokenized = tokenize([short, long], tokenizer, max_seq_length=20)
    assert [row.id for row in tokenized.rows] == ["short"]
    assert tokenized.too_long == ["long"]


def test_a_model_without_the_formats_tokens_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(OptionError, match="has no token <bos>.*gemma"):
        check_markers(AutoTokenizer.from_pretrained(tiny_llama), GEMMA, "some-model")


def test_targets_are_the_tokens_after_the_positions() -> None:
    rows = rows_of([10, 7])
    batch = collate(rows)
    flat = batch.inputs.reshape(-1)
    trained = batch.weights == 1
    assert trained.sum() == 5 + 4
    expected = [token for row in rows for token in row.tokens[row.completion_start :]]
    assert batch.targets[trained].tolist() == expected
    # Token numbers rise by one within a row, so each target follows its position's input.
    assert (flat[batch.positions[trained]] + 1 == batch.targets[trained]).all()
    assert batch.n_tokens == 17


def test_an_epoch_has_every_row_once_in_batches_of_like_length() -> None:
    rows = rows_of([5, 300, 7, 290, 6, 301, 8])
    seen: list[int] = []
    for batch in epoch(rows, 2, np.random.default_rng(0)):
        real = [row[0] // 1000 for row in batch.inputs.tolist()]
        lengths = [len(rows[index].tokens) for index in real]
        assert max(lengths) - min(lengths) < 64
        seen += real
    assert sorted(seen) == list(range(7))


def test_order_comes_from_the_seed_and_validation_has_none() -> None:
    rows = rows_of([5, 6, 7, 8, 40, 41, 70])

    def order(seed: int) -> list[int]:
        batches = epoch(rows, 2, np.random.default_rng(seed))
        return [row[0] for batch in batches for row in batch.inputs.tolist()]

    assert order(1) == order(1) != order(2)
    first, second = ([batch.inputs.tolist() for batch in in_order(rows, 3)] for _ in range(2))
    assert first == second and sum(len(batch) for batch in first) == 7


def test_a_line_that_prep_did_not_write_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = {"id": "a", "text": "ab", "completion_start": 1, "format": "gemma"}
    for bad in ({}, good | {"completion_start": 9}, good | {"format": "klingon"}):
        path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(DataError, match=r"train.jsonl, line 2: .*run prep again"):
            read_prepared(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        read_prepared(path)
