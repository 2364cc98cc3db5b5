import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from calltune.data.batching import (
    COARSE,
    FINE,
    Buckets,
    TokenRow,
    batches_by_length,
    check_control_tokens,
    collate,
    epoch,
    prompt_tokens,
    tokenize,
)
from calltune.data.prepared import PreparedRow, read_prepared
from calltune.errors import DataError, OptionError
from calltune.formats import FORMATS

GEMMA = FORMATS["gemma"]
BUCKETS = pytest.mark.parametrize("buckets", [FINE, COARSE], ids=["fine", "coarse"])


def prepared(prompt: str, completion: str, id: str = "a") -> PreparedRow:
    return PreparedRow(id, prompt + completion, len(prompt), "gemma")


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
        check_control_tokens(AutoTokenizer.from_pretrained(tiny_llama), GEMMA, "some-model")


@BUCKETS
def test_targets_are_the_tokens_after_the_positions(buckets: Buckets) -> None:
    rows = rows_of([10, 7])
    batch = collate(rows, buckets, 4)
    flat = batch.inputs.reshape(-1)
    trained = batch.weights == 1
    assert trained.sum() == batch.n_trained == 5 + 4
    expected = [token for row in rows for token in row.tokens[row.completion_start :]]
    assert batch.targets[trained].tolist() == expected
    # Token numbers rise by one within a row, so each target follows its position's input.
    assert (flat[batch.positions[trained]] + 1 == batch.targets[trained]).all()
    assert batch.n_tokens == 17 and batch.rows == tuple(rows)
    assert batch.inputs.shape == (4 if buckets is COARSE else 2, 32)
    assert {len(batch.positions), len(batch.targets), len(batch.weights)} == {64}


@BUCKETS
def test_a_batch_of_no_rows_trains_on_nothing(buckets: Buckets) -> None:
    batch = collate([], buckets, 2)
    assert batch.n_trained == batch.n_tokens == 0 and not batch.weights.any()
    assert batch.inputs.shape == (2 if buckets is COARSE else 1, 32)


@BUCKETS
@given(count=st.integers(0, 100_000))
def test_a_ladder_rounds_up_by_a_bounded_part(buckets: Buckets, count: int) -> None:
    for rounded, least in ((buckets.length(count), 32), (buckets.targets(count), 64)):
        assert rounded % least == 0 and rounded >= max(count, least)
        extra = count / 4 if buckets is COARSE else 0
        assert rounded < count + max(extra, least) or count == 0


@BUCKETS
def test_a_ladder_never_falls(buckets: Buckets) -> None:
    lengths = [buckets.length(count) for count in range(1, 5000)]
    assert lengths == sorted(lengths)
    assert all(buckets.length(length) == length for length in set(lengths))


def test_a_coarse_ladder_has_four_lengths_an_octave() -> None:
    lengths = {COARSE.length(count) for count in range(1025, 2049)}
    assert sorted(lengths) == [1280, 1536, 1792, 2048]
    assert len({FINE.length(count) for count in range(1025, 2049)}) == 32


@BUCKETS
def test_an_epoch_has_every_row_once_in_batches_of_like_length(buckets: Buckets) -> None:
    rows = rows_of([5, 300, 7, 290, 6, 301, 8])
    batches = epoch(rows, 2, 0, 0, buckets)
    for batch in batches:
        lengths = [len(row.tokens) for row in batch]
        assert max(lengths) - min(lengths) < 32
    assert sorted(row.id for batch in batches for row in batch) == [str(n) for n in range(7)]
    assert sorted(len(batch) for batch in batches) == [1, 2, 2, 2]


def test_order_comes_from_the_seed_and_the_epoch() -> None:
    rows = rows_of([5, 6, 7, 8, 40, 41, 70])

    def order(seed: int, number: int) -> list[str]:
        return [row.id for batch in epoch(rows, 2, seed, number) for row in batch]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, number)) for seed in (1, 2) for number in (0, 1)}) == 4


def test_rows_of_one_length_meet_in_new_company_each_epoch() -> None:
    rows = rows_of([20] * 8)
    company = {
        frozenset(row.id for row in batch) for n in range(4) for batch in epoch(rows, 2, 1, n)
    }
    assert len(company) > 8


def test_validation_goes_from_short_to_long_in_batches_of_bounded_size() -> None:
    rows = rows_of([41, 5, 70, 6, 40, 7, 8])
    batches = list(batches_by_length(rows, 64))
    assert [[len(row.tokens) for row in batch] for batch in batches] == [
        [5, 6, 7, 8],
        [40],
        [41],
        [70],
    ]
    assert (
        list(batches_by_length(rows[::-1], 64)) == batches and list(batches_by_length([], 64)) == []
    )


def test_a_line_that_prep_did_not_write_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = {"id": "a", "text": "ab", "completion_start": 1, "format": "gemma"}
    for bad in (
        {},
        good | {"completion_start": 9},
        good | {"format": "klingon"},
        good | {"format": []},
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(DataError, match=r"train.jsonl, line 2: .*run prep again"):
            read_prepared(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        read_prepared(path)
