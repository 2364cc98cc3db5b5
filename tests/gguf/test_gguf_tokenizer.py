from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper, load

from calltune.errors import ModelNotFound
from calltune.gguf.read import convert
from calltune.gguf.tokenizer import derive_merges, read_tokenizer

from support import tiny_gguf

BOS = 2


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    return converted("gemma3", tmp_path_factory.mktemp("gemma"), [1, 5])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    return converted("llama", tmp_path_factory.mktemp("llama"), [2])


def converted(arch: str, folder: Path, stops: list[int]) -> TokenizerWrapper:
    tiny_gguf.write(folder / "tiny.gguf", arch)
    convert(folder / "tiny.gguf", folder / "model")
    return load(folder / "model", eos_token_ids=stops)


def test_gemma_text_gets_one_bos_and_a_written_bos_is_one_token(gemma: TokenizerWrapper) -> None:
    assert gemma.encode("ab").count(BOS) == 1
    assert gemma.encode("ab")[0] == BOS
    assert gemma.encode("<bos>ab", add_special_tokens=False).count(BOS) == 1


def test_gemma_special_tokens_are_single_ids(gemma: TokenizerWrapper) -> None:
    text = "<start_of_turn>ab<end_of_turn>\n<eos>"
    pieces = gemma.convert_ids_to_tokens(gemma.encode(text, add_special_tokens=False))
    assert pieces == ["<start_of_turn>", "ab", "<end_of_turn>", "\n", "<eos>"]


def test_gemma_spaces_runs_and_unknown_letters(gemma: TokenizerWrapper) -> None:
    pieces = gemma.convert_ids_to_tokens(gemma.encode(" ab   c\n\né", add_special_tokens=False))
    assert pieces == ["▁ab", "▁▁▁", "c", "\n\n", "<0xC3>", "<0xA9>"]


@pytest.mark.parametrize("text", ["ab c", "  a", "a\n\n\nb", "é 😀 {", "a b  c   "])
def test_gemma_text_survives_the_round_trip(gemma: TokenizerWrapper, text: str) -> None:
    assert gemma.decode(gemma.encode(text, add_special_tokens=False)) == text


def test_gemma_template_writes_turns_and_puts_the_system_message_first(
    gemma: TokenizerWrapper,
) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert gemma.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    )


def test_llama_text_gets_no_bos_and_digits_stand_alone(llama: TokenizerWrapper) -> None:
    assert llama.convert_ids_to_tokens(llama.encode("ab 12")) == ["ab", "Ġ", "1", "2"]
    ids = llama.encode("<|im_start|>a<|im_end|>\n")
    assert llama.convert_ids_to_tokens(ids) == ["<|im_start|>", "a", "<|im_end|>", "Ċ"]
    assert llama.decode(llama.encode("ab 12.3")) == "ab 12.3"


def test_merges_are_ranked_by_score_after_the_runs() -> None:
    tokenizer = read_tokenizer(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["\n", "\n\n", "a", "b", "c", "bc", "ab", "abc", "xy"],
            "tokenizer.ggml.token_type": [4, 4, 1, 1, 1, 1, 1, 1, 1],
            "tokenizer.ggml.scores": [-9.0, -9.0, 0.0, 0.0, 0.0, -2.0, -1.0, -3.0, -4.0],
            "tokenizer.ggml.eos_token_id": 0,
        },
        None,
    )
    assert derive_merges(tokenizer, tokenizer.tokens) == [
        ["\n", "\n"],
        ["a", "b"],
        ["b", "c"],
        ["a", "bc"],
        ["ab", "c"],
    ]


def test_an_unknown_pre_tokenizer_is_refused() -> None:
    fields = {"model": "gpt2", "pre": "dbrx", "tokens": ["a"], "eos_token_id": 0}
    with pytest.raises(ModelNotFound, match="gpt2, dbrx"):
        read_tokenizer({f"tokenizer.ggml.{key}": value for key, value in fields.items()}, None)
