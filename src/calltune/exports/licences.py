"""Licences of what an export was made of, as far as calltune knows them."""

import shutil
from pathlib import Path

from calltune.models.packaged import PACKAGED, Packaged
from calltune.wheels import cache_folder

_OF_THE_HUB = {"Apache-2.0": "apache-2.0", "Gemma Terms of Use": "gemma"}
"""The hub's names of licences."""
_OF_DATA = {
    "bfcl-eval": "BFCL, Apache-2.0",
    "xlam-function-calling-60k": "xlam-function-calling-60k, CC-BY-4.0, as its page says",
}
"""By the name of a dataset, with which `calltune load` begins the name of its file."""


def hub_licence(reference: str) -> str | None:
    """The hub's name of a base model's licence."""
    packaged = _packaged(reference)
    return _OF_THE_HUB.get(packaged.licence) if packaged else None


def base_licence(reference: str) -> str:
    """What a card says of a base model's licence."""
    if packaged := _packaged(reference):
        return " ".join(filter(None, [f"{packaged.licence}.", packaged.notice]))
    return "not known here; see the base model"


def data_licence(file_name: str) -> str:
    """What a card says of the licence of rows that load wrote to a file of this name."""
    found = [told for start, told in _OF_DATA.items() if file_name.startswith(f"{start}_")]
    return found[0] if found else "not known here; see the data"


def pass_on(reference: str, folder: Path) -> None:
    """Put into a folder what the base model's terms ask to go along with it."""
    packaged = _packaged(reference)
    if packaged is None or not packaged.notice:
        return
    (folder / "NOTICE").write_text(f"{packaged.notice}\n", "utf-8")
    terms = cache_folder() / "models" / Path(packaged.terms[1]).name if packaged.terms else None
    if terms is not None and terms.is_file():
        shutil.copyfile(terms, folder / terms.name)


def _packaged(reference: str) -> Packaged | None:
    name = reference.removeprefix("pip:")
    return PACKAGED.get(name) if name != reference else None
