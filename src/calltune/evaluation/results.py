"""Results files: what testing one model wrote, read back and checked."""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import DataError
from calltune.evaluation.records import Record
from calltune.files import read_json
from calltune.types import Json

BASE_RESULTS = "base_model_test_results.json"
TUNED_RESULTS = "finetuned_model_test_results.json"
"""The manual's names for the files of the two models."""
SCHEMA_VERSION = 1
"""Of the files that this version writes; files without one were written before there was one."""


@dataclass(frozen=True, slots=True)
class Results:
    """One results file."""

    path: Path
    model: str
    adapter: str | None
    prompt_format: str
    test_path: str
    """Where the test set was."""
    test_digest: str
    """The SHA-256 of the test set."""
    adapter_digest: str | None
    """The SHA-256 of the adapter's weights; None without an adapter, and where it is not told."""
    records: dict[str, Record]
    """By example id, in the order of the file."""

    @classmethod
    def from_json(cls, path: Path, document: Json) -> "Results":
        """The results in a JSON document; `path` is where it came from.

        Raises:
            DataError: it is not a results file, or one of a later version.
        """
        # Here, because pydantic takes a third of a second to import.
        from calltune.evaluation.results_schema import parse_results, to_records

        version = document.get("schema_version", 0) if isinstance(document, dict) else 0
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise DataError(
                f"{path} was written by a later calltune (schema_version {version}, this one reads "
                f"{SCHEMA_VERSION}); update calltune"
            )
        parsed = parse_results(document, path)
        digest = parsed.identity.get("adapter_sha256")
        return cls(
            path=path,
            model=parsed.model,
            adapter=parsed.adapter,
            prompt_format=parsed.format,
            test_path=parsed.test_set.path,
            test_digest=parsed.test_set.sha256,
            adapter_digest=digest if isinstance(digest, str) else None,
            records=to_records(parsed, document, path),
        )


def read_results(path: Path) -> Results:
    """The results in `path`, or in the file beside it that `path` names as `results_file`.

    Raises:
        DataError: the file is missing or is not a results file.
    """
    document = read_json(path)
    if isinstance(document, dict) and isinstance(document.get("results_file"), str):
        path = path.parent / document["results_file"]
        document = read_json(path)
    return Results.from_json(path, document)
