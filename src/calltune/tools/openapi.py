"""The operations of an OpenAPI 3 document as tools."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from calltune.calls import Json
from calltune.errors import DataError
from calltune.tools.documents import read_document
from calltune.tools.references import Document, References, Schema
from calltune.tools.requests import read_body, read_parameters
from calltune.tools.toolset import Draft, Note, Toolset, assembled

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")


class Operation(NamedTuple):
    """One operation, and where it stands."""

    method: str
    path: str
    written: Schema
    shared: Json
    """Parameters of all operations of the path."""

    @property
    def name(self) -> str:
        """Its operationId, or method and path."""
        own = self.written.get("operationId")
        return own if isinstance(own, str) and own else f"{self.method} {self.path}"

    @property
    def description(self) -> str:
        """Its summary and description."""
        texts = [self.written.get(key) for key in ("summary", "description")]
        said = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
        return "\n\n".join(dict.fromkeys(said))


def from_openapi(source: str | Path | Schema) -> Toolset:
    """The tools that the operations of a document are; a path, or JSON that is read already.

    Path, query and header parameters and the members of the JSON body are one object; the
    `requests` module says when the body stays whole. Local references are inlined, recursive ones
    stay in `$defs`. Noted and left out: cookies, bodies that are not JSON, references to other
    documents, callbacks and webhooks.

    Raises:
        DataError: no such file, neither JSON nor YAML, another version of OpenAPI, no operations.
    """
    name = str(source) if isinstance(source, str | Path) else "The document"
    root = read_document(Path(source)) if isinstance(source, str | Path) else source
    _check_version(root, name)
    notes: list[Note] = []
    document = Document(root)
    drafts: list[Draft] = []
    try:
        for operation in _operations(document, notes):
            drafts += _drafts(operation, document, notes)
    except RecursionError:
        raise DataError(f"{name} is nested too deep; give a simpler one") from None
    if not drafts and not notes:
        raise DataError(f"{name} has no operations under paths; give one that has")
    return assembled(drafts, notes)


def _check_version(root: Json, name: str) -> None:
    if not isinstance(root, dict) or not {"openapi", "swagger"} & root.keys():
        raise DataError(f"{name} is no OpenAPI document; it has no member openapi")
    if not str(version := root.get("openapi")).startswith("3."):
        found = f"Swagger {root['swagger']}" if "swagger" in root else f"OpenAPI {version}"
        raise DataError(f"{name} is {found}; convert it to OpenAPI 3")


def _operations(document: Document, notes: list[Note]) -> Iterator[Operation]:
    if document.root.get("webhooks"):
        notes.append(Note("", "webhooks are left out: the server calls them"))
    paths = document.root.get("paths")
    for path, written in (paths if isinstance(paths, dict) else {}).items():
        if not str(path).startswith("/"):
            continue
        item = References(document, _noting(notes, path)).followed(written) or {}
        for method, operation in item.items():
            if method in METHODS and isinstance(operation, dict):
                yield Operation(method, path, operation, item.get("parameters"))


def _drafts(operation: Operation, document: Document, notes: list[Note]) -> list[Draft]:
    """The operation as a tool; none where it wants what no call can give."""
    note = _noting(notes, operation.name)
    references = References(document, note)
    if operation.written.get("callbacks"):
        note("callbacks are left out: the server calls them")
    listed = [operation.shared, operation.written.get("parameters")]
    parameters = read_parameters(listed, references, note)
    whole = read_body(operation.written.get("requestBody"), parameters, references, note)
    if whole is None:
        return []
    if definitions := references.definitions():
        whole = whole | {"$defs": definitions}
    if references.read_only:
        note(f"only answers have {', '.join(references.read_only)}; left out")
    return [Draft(operation.name, operation.description, whole)]


def _noting(notes: list[Note], name: str) -> Callable[[str], None]:
    return lambda text: notes.append(Note(name, text))
