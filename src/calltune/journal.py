"""Records kept one by one while a long run goes on, so that a killed run can be taken up again."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from calltune.calls import Json
from calltune.jsonl import dumps, output_error


class Journal(NamedTuple):
    """A JSON Lines file whose first line says what its records belong to."""

    path: Path
    identity: dict[str, Json]
    """Records of another identity are not taken over."""

    def records(self) -> list[dict[str, Json]]:
        """The whole records of an interrupted run; none when it was another run's."""
        if not self.path.exists():
            return []
        whole = []
        for line in self.path.read_bytes().splitlines():
            try:
                whole.append(json.loads(line))
            except ValueError:
                # The line in writing when the run was killed.
                break
        if not whole or whole[0] != {"identity": self.identity}:
            return []
        return whole[1:]

    @contextmanager
    def continued(self) -> Iterator[IO[str]]:
        """The file, with its whole records in it, open for `append`."""
        kept = self.records()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", encoding="utf-8") as file:
                for line in [{"identity": self.identity}, *kept]:
                    file.write(dumps(line) + "\n")
                file.flush()
                yield file
        except OSError as error:
            raise output_error(self.path, error) from error

    @staticmethod
    def append(file: IO[str], record: dict[str, Json]) -> None:
        """Write one record through to the disk."""
        file.write(dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
