"""Resolves a model reference (folder, GGUF file, package, hub id) to a folder for mlx_lm."""

import hashlib
import re
from pathlib import Path

from calltune.downloads import cache_folder
from calltune.errors import ModelNotFound
from calltune.models.packaged import PACKAGED, packaged_gguf
from calltune.terminal_text import Heartbeat

CONVERTER = 1
"""The version in the names of converted folders; raise it when what is written there changes."""

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def resolve(reference: str, *, dense: bool = False) -> Path:
    """The folder of the model that `reference` names, fetched and converted where needed.

    A reference is a folder, a `.gguf` file, `pip:NAME`, or the id of a model on the hub. With
    `dense` the folder holds float32 weights; otherwise they are as the model came.

    Raises:
        ModelNotFound: nothing is there, or a file that is needed is missing.
        AccessDenied: the model on the hub is gated.
        FetchError: it could not be fetched.
        OutputError: the cache folder cannot be written.
    """
    if reference.startswith("pip:"):
        return _packaged(reference, dense)
    path = Path(reference).expanduser()
    if path.suffix == ".gguf":
        return _gguf(path, dense)
    if not path.is_dir():
        if path.exists() or not _HUB_ID.fullmatch(reference):
            raise ModelNotFound(
                f"No model folder {reference}; expected a folder, a .gguf file, "
                f"{' or '.join(f'pip:{name}' for name in PACKAGED)}, or a hub id such as "
                "mlx-community/gemma-3-1b-it-4bit"
            )
        path = _from_hub(reference)
    check_folder(path)
    return _dense_copy(path, reference) if dense else path


def check_folder(folder: Path) -> None:
    """Check that a model folder has the files that loading needs.

    Raises:
        ModelNotFound: names the first file that is missing.
    """
    wanted = {
        "config.json": ("config.json",),
        "model*.safetensors": ("model*.safetensors",),
        "tokenizer.json": ("tokenizer.json", "tokenizer.model", "*.tiktoken"),
    }
    for name, patterns in wanted.items():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            raise ModelNotFound(
                f"No {name} in {folder}; expected a model folder that mlx_lm can load, "
                "so check the path or fetch the model again"
            )


def _packaged(reference: str, dense: bool) -> Path:
    name = reference.removeprefix("pip:")
    if name not in PACKAGED:
        known = ", ".join(f"pip:{known}" for known in PACKAGED)
        raise ModelNotFound(f"No model {reference}; the known ones are {known}")
    packaged = PACKAGED[name]
    folder = _converted(f"{name}-{packaged.sha256[:8]}", dense)
    if not folder.is_dir():
        from calltune.gguf.read import convert

        with packaged_gguf(name) as gguf_file, Heartbeat(f"converting {reference}"):
            convert(gguf_file, folder, dense)
    return folder


def _gguf(path: Path, dense: bool) -> Path:
    if not path.is_file():
        raise ModelNotFound(f"No file {path}; check the path")
    stat = path.stat()
    seen = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    folder = _converted(f"{path.stem}-{_short_hash(seen)}", dense)
    if not folder.is_dir():
        from calltune.gguf.read import convert

        with Heartbeat(f"converting {path.name}"):
            convert(path, folder, dense)
    return folder


def _dense_copy(path: Path, reference: str) -> Path:
    stats = [file.stat() for file in sorted(path.glob("*.*"))]
    seen = f"{path.resolve()} {[(stat.st_size, stat.st_mtime_ns) for stat in stats]}"
    folder = _converted(f"{reference.rstrip('/').split('/')[-1]}-{_short_hash(seen)}", True)
    if not folder.is_dir():
        from calltune.models.dense import write_dense

        with Heartbeat(f"dequantizing {reference}"):
            write_dense(path, folder)
    return folder


def _converted(name: str, dense: bool) -> Path:
    """Where a converted model is kept; another version of the converter uses another folder."""
    return cache_folder() / "models" / f"{name}-v{CONVERTER}{'-dense' if dense else ''}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _from_hub(reference: str) -> Path:
    from calltune.models.hub import fetch_model

    return fetch_model(reference)
