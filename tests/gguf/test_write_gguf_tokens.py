"""The tokenizer in the file cuts texts as the folder's does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from calltune.errors import ModelNotFound
from calltune.gguf.read import convert
from calltune.gguf.tokenizer import SPLITTERS
from calltune.gguf.write import write_gguf
from calltune.types import Json
from gguf import GGUFReader

from support import tiny_gguf

FORMAT_OF = {"llama": "chatml", "gemma3": "gemma"}
TEXTS = st.text(st.sampled_from("abcé 12.\n\t😀▁<>") | st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("gemma3", tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


def tiny_folder(arch: str, root: Path) -> Path:
    tiny_gguf.write(root / "tiny.gguf", arch)
    convert(root / "tiny.gguf", root / "model", dense=True)
    return root / "model"


def read_back(folder: Path, arch: str, root: Path) -> Tokenizer:
    convert(write_gguf(folder, root / "m.gguf", FORMAT_OF[arch]), root / "back")
    return Tokenizer.from_file(str(root / "back" / "tokenizer.json"))


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def edited(folder: Path, root: Path, edit: Callable[[dict[str, Json]], object]) -> Path:
    """A copy of a folder with another tokenizer.json."""
    shutil.copytree(folder, root / "edited")
    file = root / "edited" / "tokenizer.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))
    return root / "edited"


@pytest.mark.parametrize("arch", FORMAT_OF)
def test_a_written_tokenizer_is_read_back_as_it_was(arch: str, tmp_path: Path) -> None:
    folder = tiny_folder(arch, tmp_path)
    convert(write_gguf(folder, tmp_path / "m.gguf", FORMAT_OF[arch]), tmp_path / "back")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        before, after = (json.loads((f / name).read_text()) for f in (folder, tmp_path / "back"))
        assert before == after, name


@pytest.fixture(scope="module")
def pairs(
    gemma: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Tokenizer, Tokenizer]]:
    """Tokenizers as their folders have them, and as read back."""
    return [
        (
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            read_back(folder, arch, tmp_path_factory.mktemp("back")),
        )
        for arch, folder in (("gemma3", gemma), ("llama", llama))
    ]


@given(text=TEXTS)
def test_every_text_has_the_same_ids(pairs: list[tuple[Tokenizer, Tokenizer]], text: str) -> None:
    for before, after in pairs:
        assert before.encode(text).ids == after.encode(text).ids


def test_merges_written_as_texts_are_read_too(llama: Path, tmp_path: Path) -> None:
    def join(document: dict[str, Json]) -> None:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]

    own = edited(llama, tmp_path, join)
    assert fields(write_gguf(own, tmp_path / "m.gguf", "chatml"))["tokenizer.ggml.merges"] == [
        "1 2",
        "a b",
    ]


def test_llama_3_words_that_are_tokens_are_not_put_together(llama: Path, tmp_path: Path) -> None:
    def as_llama_3(document: dict[str, Json]) -> None:
        document["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": SPLITTERS["llama-bpe"],
        }
        document["model"] |= {"ignore_merges": True}
        # A word for which there is no merge.
        document["model"]["vocab"] |= {"abc": len(document["model"]["vocab"])}

    own = edited(llama, tmp_path, as_llama_3)
    after = read_back(own, "llama", tmp_path)
    before = Tokenizer.from_file(str(own / "tokenizer.json"))
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == "llama-bpe"
    assert before.encode("ab 1234 abcab\n").ids == after.encode("ab 1234 abcab\n").ids
    assert "abc" not in after.get_vocab(), "a token without a row is left out"


def test_rows_without_a_token_get_one_that_no_text_has(gemma: Path, tmp_path: Path) -> None:
    def forget(document: dict[str, Json]) -> None:
        document["model"]["vocab"] = dict(list(document["model"]["vocab"].items())[:-1])
        document["model"]["merges"] = [
            pair for pair in document["model"]["merges"] if "".join(pair) != "abc"
        ]

    own = edited(gemma, tmp_path, forget)
    written = fields(write_gguf(own, tmp_path / "m.gguf", "gemma"))
    last = len(written["tokenizer.ggml.tokens"]) - 1
    assert written["tokenizer.ggml.tokens"][last] == f"[PAD{last}]"
    assert written["tokenizer.ggml.token_type"][last] == 5


def test_bos_goes_before_a_prompt_where_the_format_has_one(llama: Path, tmp_path: Path) -> None:
    def with_bos(document: dict[str, Json]) -> None:
        bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }

    own = edited(llama, tmp_path, with_bos)
    written = fields(write_gguf(own, tmp_path / "m.gguf", "chatml"))
    assert written["tokenizer.ggml.add_bos_token"] is False


def metaspace(document: dict[str, Json], scheme: str) -> None:
    document["normalizer"] = None
    steps = {"replacement": "▁", "prepend_scheme": scheme, "split": False}
    document["pre_tokenizer"] = {"type": "Metaspace"} | steps


def forget_runs(document: dict[str, Json]) -> None:
    """Models that add a space have no tokens for runs of them."""
    document["added_tokens"] = [t for t in document["added_tokens"] if "▁" not in t["content"]]
    runs = {"▁▁", "▁▁▁"}
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {t: i for t, i in vocabulary.items() if t not in runs}
    merges = document["model"]["merges"]
    document["model"]["merges"] = [pair for pair in merges if "".join(pair) not in runs]


def prepends(document: dict[str, Json]) -> None:
    normalizers = [{"type": "Prepend", "prepend": "▁"}, document["normalizer"]]
    document["normalizer"] = {"type": "Sequence", "normalizers": normalizers}


def cuts_at_spaces(document: dict[str, Json]) -> None:
    document["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }


@pytest.mark.parametrize(
    ("edit", "adds_space"),
    [
        (lambda document: (forget_runs(document), prepends(document)), True),
        (lambda document: metaspace(document, "never"), False),
        (cuts_at_spaces, False),
    ],
)
def test_a_space_before_a_text_is_told_from_the_tokenizer(
    edit: Callable[[dict[str, Json]], object], adds_space: bool, gemma: Path, tmp_path: Path
) -> None:
    own = edited(gemma, tmp_path, edit)
    after = read_back(own, "gemma3", tmp_path)
    before = Tokenizer.from_file(str(own / "tokenizer.json"))
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.add_space_prefix"] is adds_space
    for text in ("ab c", " ab<end_of_turn>ab", "a\n\nab"):
        assert before.encode(text).ids == after.encode(text).ids
    assert after.encode("ab c").tokens[1] == ("▁ab" if adds_space else "ab")


def no_space_prefix(document: dict[str, Json]) -> None:
    document["normalizer"] = {"type": "NFKC"}


def other_words(document: dict[str, Json]) -> None:
    document["pre_tokenizer"] = {"type": "Whitespace"}


def strips(document: dict[str, Json]) -> None:
    document["added_tokens"][0]["lstrip"] = True


def one_merge_less(document: dict[str, Json]) -> None:
    document["model"]["merges"].remove(["▁", "a"])


def unigram(document: dict[str, Json]) -> None:
    document["model"]["type"] = "Unigram"


@pytest.mark.parametrize(
    ("arch", "edit", "fault"),
    [
        ("gemma3", no_space_prefix, "prepares texts in a way"),
        ("gemma3", prepends, "prepares texts in a way"),
        ("gemma3", lambda document: metaspace(document, "always"), "prepares texts in a way"),
        ("gemma3", other_words, "prepares texts in a way"),
        ("llama", other_words, "cuts texts in a way that has no name"),
        ("llama", no_space_prefix, "cuts texts in a way that has no name"),
        ("gemma3", strips, "takes in what stands beside it"),
        ("gemma3", one_merge_less, "not those of a SentencePiece model"),
        ("gemma3", unigram, "tokenizer is Unigram"),
    ],
)
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(
    arch: str,
    edit: Callable[[dict[str, Json]], object],
    fault: str,
    gemma: Path,
    llama: Path,
    tmp_path: Path,
) -> None:
    own = edited(gemma if arch == "gemma3" else llama, tmp_path, edit)
    with pytest.raises(ModelNotFound, match=fault):
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch])


def test_merges_of_one_piece_that_lie_apart_are_refused(gemma: Path, tmp_path: Path) -> None:
    def scatter(document: dict[str, Json]) -> None:
        merges = document["model"]["merges"]
        places = [i for i, pair in enumerate(merges) if "".join(pair) == "abc"]
        assert len(places) == 1, "abc is made of ab and c alone"
        merges.insert(0, ["a", "bc"])
        document["model"]["vocab"]["bc"] = document["model"]["vocab"].pop("▁ab")

    own = edited(gemma, tmp_path, scatter)
    with pytest.raises(ModelNotFound, match="not those of a SentencePiece model"):
        write_gguf(own, tmp_path / "m.gguf", "gemma")


def test_a_format_whose_end_token_is_missing_is_refused(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no token <\|im_end\|>, which the format chatml"):
        write_gguf(gemma, tmp_path / "m.gguf", "chatml")
