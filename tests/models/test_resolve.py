import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlx.core as mx
import pytest
from huggingface_hub import constants
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from calltune.errors import AccessDenied, FetchError, ModelNotFound
from calltune.gguf.read import convert
from calltune.models.resolve import resolve
from gguf import GGMLQuantizationType as Kind

from support import tiny_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class _Refusals(BaseHTTPRequestHandler):
    """Answers every request for a model with one of the hub's refusals."""

    def do_GET(self) -> None:
        kinds = {
            "gated": (401, "GatedRepo"),
            "forbidden": (403, ""),
            "missing": (404, "RepoNotFound"),
        }
        kind = next((kind for kind in kinds if kind in self.path), "missing")
        status, code = kinds[kind]
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusals)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_is_taken_as_it_is(tiny_llama: Path) -> None:
    assert resolve(str(tiny_llama)) == tiny_llama


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_says_which(missing: str, tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in tiny_llama.iterdir():
        if path.name != missing:
            (folder / path.name).symlink_to(path)
    with pytest.raises(ModelNotFound, match=rf"No {missing.split('.')[0]}.* in {folder}"):
        resolve(str(folder))


@pytest.mark.parametrize("reference", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_path_that_leads_nowhere_is_not_asked_of_the_hub(reference: str) -> None:
    with pytest.raises(ModelNotFound, match="No model folder"):
        resolve(reference)


def test_an_unknown_packaged_model_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match="pip:smollm2-135m, pip:gemma3-270m"):
        resolve("pip:gpt-5")


def test_a_missing_gguf_file_is_named() -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere\.gguf"):
        resolve("nowhere.gguf")


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_gguf.write(path, "llama")
    folder = resolve(str(path))
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert resolve(str(path)) == folder
    assert (folder / "config.json").stat().st_mtime_ns == stamp
    assert resolve(str(path), dense=True) != folder
    tiny_gguf.write(path, "gemma3")
    assert resolve(str(path)) != folder


def test_a_dense_copy_of_a_folder_holds_its_numbers_in_float32(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama", {"attn_q": Kind.Q4_0, "token_embd": Kind.Q8_0})
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    convert(tmp_path / "tiny.gguf", tmp_path / "expected", dense=True)
    copy = resolve(str(tmp_path / "model"), dense=True)
    assert resolve(str(tmp_path / "model"), dense=True) == copy
    model, config = load_model(copy)
    assert "quantization" not in config
    weights = dict(tree_flatten(model.parameters()))
    assert {weight.dtype for weight in weights.values()} == {mx.float32}
    expected = dict(tree_flatten(load_model(tmp_path / "expected")[0].parameters()))
    for name in ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight"):
        assert mx.array_equal(weights[name], expected[name]).item()
    assert (copy / "tokenizer.json").is_file()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["acme/gated", "acme/forbidden"])
def test_a_gated_model_says_how_to_get_access(name: str) -> None:
    with pytest.raises(AccessDenied, match=r"accept its terms .* run `hf auth login`"):
        resolve(name)


@pytest.mark.usefixtures("hub")
def test_a_model_that_the_hub_does_not_have_is_named() -> None:
    with pytest.raises(ModelNotFound, match="no model acme/missing on the hub"):
        resolve("acme/missing")


def test_a_hub_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FetchError, match="check the connection and run again") as raised:
        resolve("acme/model")
    assert "\n" not in str(raised.value)
