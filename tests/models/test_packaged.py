"""The packaged models themselves: fetched once, then read from the cache."""

from functools import cache
from typing import Any

import pytest
from mlx_lm import generate
from mlx_lm.tokenizer_utils import load as load_tokenizer

from calltune.models.backend import choose
from calltune.models.loading import LoadedModel, load
from calltune.models.resolve import resolve

pytestmark = pytest.mark.real

# fmt: off
GEMMA_IDS = [
    ('{"name": "get_weather", "arguments": {"city": "New York", "days": [1, 2.5]}}', [
        2, 14937, 1201, 1083, 623, 828, 236779, 19323, 827, 623, 33178, 1083, 3714, 13319, 1083,
        623, 4199, 3773, 827, 623, 14356, 1083, 870, 236770, 236764, 236743, 236778, 236761,
        236810, 236842, 1807,
    ]),
    ('a  b   c    d\t\te\n\n\nf', [
        2, 236746, 138, 236763, 139, 236755, 140, 236753, 255969, 236744, 109, 236760,
    ]),
    ('<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n', [
        2, 2, 105, 2364, 107, 2202, 106, 107, 105, 4368, 107,
    ]),
    ('```json\n[{"id": "call_id_0"}]\n```<end_of_turn><eos>', [
        2, 2717, 3723, 107, 236840, 14937, 547, 1083, 623, 6639, 236779, 547, 236779, 236771,
        236775, 15947, 107, 2717, 106, 1,
    ]),
    ('caf\xe9 \U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u4e2d\u6587', [
        2, 123125, 236859, 163543, 236743, 243767, 237243, 243767, 237243, 244814, 17346,
        237364,
    ]),
    (' leading and trailing ', [2, 5830, 532, 45330, 236743]),
    ('\r\n\x00\x07', [2, 251, 107, 238, 245]),
    ('<table><tr><td>1</td></tr></table>', [2, 168, 173, 175, 236770, 183, 181, 176]),
    ('\u2581\u2581x \u2581', [2, 138, 236781, 138]),
    (" " * 35 + "\n" * 34 + "\t" * 33, [2, 167, 140, 137, 109, 255998, 255969]),
    ('3.14159e-10 12345678', [
        2, 236800, 236761, 236770, 236812, 236770, 236810, 236819, 236744, 236772, 236770,
        236771, 236743, 236770, 236778, 236800, 236812, 236810, 236825, 236832, 236828,
    ]),
    ('', [2]),
]
# fmt: on
"""Texts with the ids that Gemma 3's published tokenizer gives them."""


@cache
def loaded(reference: str) -> LoadedModel:
    return load(reference, choose("cpu"))


@cache
def gemma_tokenizer() -> Any:
    return load_tokenizer(resolve("pip:gemma3-270m"), eos_token_ids=[1, 106])


@pytest.mark.slow
@pytest.mark.parametrize(("text", "ids"), GEMMA_IDS)
def test_gemma_ids_are_the_published_ones(text: str, ids: list[int]) -> None:
    assert list(gemma_tokenizer().encode(text)) == ids


@pytest.mark.slow
def test_gemma_continues_a_list_of_colours() -> None:
    gemma = loaded("pip:gemma3-270m")
    assert gemma.tokenizer.eos_token_ids == {1, 106}
    prompt = gemma.tokenizer.encode("The primary colors are")
    assert generate(gemma.model, gemma.tokenizer, prompt, max_tokens=8).startswith(" red, ")


@pytest.mark.slow
def test_smollm_knows_the_capital_of_france() -> None:
    smollm = loaded("pip:smollm2-135m")
    assert smollm.tokenizer.eos_token_ids == {2}
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = smollm.tokenizer.apply_chat_template(question, add_generation_prompt=True)
    assert "Paris" in generate(smollm.model, smollm.tokenizer, prompt, max_tokens=16)


def test_smollm_splits_digits_one_by_one() -> None:
    tokenizer = load_tokenizer(resolve("pip:smollm2-135m"), eos_token_ids=[2])
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("It cost 1234.5<|im_end|>\n"))
    assert pieces == ["It", "Ġcost", "Ġ", "1", "2", "3", "4", ".", "5", "<|im_end|>", "Ċ"]
