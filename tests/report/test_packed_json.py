import base64
import json
import random
import zlib

from calltune.report.html import LENGTHS, Packed, packed
from calltune.types import Json


def unpacked(found: Packed) -> Json:
    return json.loads(zlib.decompress(base64.b64decode(found.base64)))


def noise(letters: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=letters))


def test_what_fits_comes_back_whole() -> None:
    data = {"texts": ["héllo\n", "世界"], "place": [1, 2.5, None, True], "<b>": "</script>"}
    found = packed(data, 1000)
    assert unpacked(found) == data and found.cut_after is None
    assert "<" not in found.base64


def test_longer_texts_are_cut_with_a_mark_until_all_fits() -> None:
    data = [noise(3000, seed) for seed in range(20)] + ["short"]
    found = packed(data, 15_000)
    assert len(found.base64) <= 15_000 and found.cut_after in LENGTHS
    first = unpacked(found)[0]
    assert first == f"{data[0][: found.cut_after]}… ({3000 - found.cut_after:,} more characters)"
    assert unpacked(found)[-1] == "short"
    # No shorter than is needed.
    longer = LENGTHS[LENGTHS.index(found.cut_after) - 1]
    assert longer >= 3000 or 20 * longer * 0.6 * 4 / 3 > 15_000


def test_no_text_is_cut_below_the_least_length() -> None:
    found = packed([noise(3000, seed) for seed in range(20)], 10)
    assert found.cut_after == LENGTHS[-1] and len(found.base64) > 10


def test_one_very_long_text_is_cut_even_where_it_would_fit() -> None:
    found = packed(["a" * 100_000], 1_000_000)
    assert found.cut_after == LENGTHS[0] and "80,000 more characters" in unpacked(found)[0]


def test_control_characters_are_made_visible() -> None:
    assert unpacked(packed(["\x1b[31m\u202e\ud800"], 1000)) == ["\\x1b[31m\\u202e\\ud800"]
