"""OpenAPI 3 documents as a tool source: each operation is a tool.

How an operation's parameters and body become arguments is `openapi_arguments`' business; how a
document is read with the files beside it, `openapi_files`'.

Source: OpenAPI 3.0 and 3.1, https://spec.openapis.org/oas; documents are JSON or YAML.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from calltune.errors import DataError
from calltune.schemas.keywords import Schema
from calltune.schemas.openapi_dialect import OpenAPIDocument, SchemaConverter
from calltune.schemas.remarks import Noting
from calltune.tools.openapi_arguments import add_body, parameters_schema
from calltune.tools.openapi_files import read_whole_document, with_pointers
from calltune.tools.toolset import Note, ToolDraft, Toolset, build_toolset
from calltune.types import Json

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")


class Operation(NamedTuple):
    """One operation of a document."""

    method: str
    path: str
    written: Schema
    shared: Json
    """The parameters of all operations of its path."""

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
    """The tools of a document's operations; a path, or JSON that is parsed already.

    Path, query and header parameters and the members of the body, JSON or a form, are one object.
    References are inlined, those to files beside the document too; recursive ones stay in `$defs`.
    Left out, with a note: cookies, other bodies, references to addresses, callbacks and webhooks.

    Raises:
        DataError: no such file, neither JSON nor YAML, another version of OpenAPI, no operations.
    """
    name = str(source) if isinstance(source, str | Path) else "The document"
    root: Json = source
    if isinstance(source, str | Path):
        root = read_whole_document(Path(source))
    _check_version(root, name)
    root = with_pointers(root)
    notes: list[Note] = []
    document = OpenAPIDocument(root)
    drafts: list[ToolDraft] = []
    try:
        for operation in _operations(document, notes):
            drafts += _drafts(operation, document, notes)
    except RecursionError:
        raise DataError(f"{name} is nested too deep; give a simpler one") from None
    if not drafts and not notes:
        raise DataError(f"{name} has no operations under paths; give one that has")
    return build_toolset(drafts, notes)


def _check_version(root: Json, name: str) -> None:
    if not isinstance(root, dict) or not {"openapi", "swagger"} & root.keys():
        raise DataError(f"{name} is not an OpenAPI document; it has no member openapi")
    if not str(version := root.get("openapi")).startswith("3."):
        found = f"Swagger {root['swagger']}" if "swagger" in root else f"OpenAPI {version}"
        raise DataError(f"{name} is {found}; convert it to OpenAPI 3")


def _operations(document: OpenAPIDocument, notes: list[Note]) -> Iterator[Operation]:
    if document.root.get("webhooks"):
        notes.append(Note("", "webhooks are left out: the server calls them"))
    paths = document.root.get("paths")
    for path, written in (paths if isinstance(paths, dict) else {}).items():
        if not str(path).startswith("/"):
            continue
        converter = SchemaConverter(document, _noting(notes, path))
        item = converter.resolve_beside(written) or {}
        for method, operation in item.items():
            if method in METHODS and (found := converter.resolve_beside(operation)) is not None:
                yield Operation(method, path, found, item.get("parameters"))


def _drafts(operation: Operation, document: OpenAPIDocument, notes: list[Note]) -> list[ToolDraft]:
    """The operation as a tool; none where it requires what no call can give."""
    note = _noting(notes, operation.name)
    converter = SchemaConverter(document, note)
    if operation.written.get("callbacks"):
        note("callbacks are left out: the server calls them")
    listed = [operation.shared, operation.written.get("parameters")]
    parameters = parameters_schema(listed, converter, note)
    whole = add_body(operation.written.get("requestBody"), parameters, converter, note)
    if whole is None:
        return []
    if definitions := converter.definitions():
        whole = whole | {"$defs": definitions}
    if converter.read_only:
        kind = "what only responses have is left out"
        note(f"only responses have {', '.join(converter.read_only)}; left out", kind)
    return [ToolDraft(operation.name, operation.description, whole)]


def _noting(notes: list[Note], name: str) -> Noting:
    def note(text: str, kind: str = "", *, is_loss: bool = False) -> None:
        notes.append(Note(name, text, kind, is_loss))

    return note
