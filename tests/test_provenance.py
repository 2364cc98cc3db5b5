from calltune.provenance import describe_changes

DIGESTS = ("a" * 64, "b" * 64)


def test_what_changed_is_told_with_both_values() -> None:
    before = {"options": {"iters": 500, "modules": ["q_proj"], "seed": 1}, "model": "m"}
    now = {"options": {"iters": 800, "modules": [], "seed": 1}, "model": "m"}
    assert describe_changes(before, now) == 'iters 500, now 800; modules ["q_proj"], now []'
    assert describe_changes(before, before) == ""


def test_what_one_of_them_lacks_is_null_there() -> None:
    assert describe_changes({"max_tokens": 8}, {"max_tokens": 8, "constrain": True}) == (
        "constrain null, now true"
    )


def test_digests_are_named_and_not_shown() -> None:
    before, now = (
        {"test_sha256": digest, "data_sha256": {"train.jsonl": digest}} for digest in DIGESTS
    )
    assert describe_changes(before, now) == (
        "test has other content; train.jsonl has other content"
    )


def test_long_values_are_cut() -> None:
    assert len(describe_changes({"backend": "x" * 500}, {"backend": "y" * 500})) < 150
