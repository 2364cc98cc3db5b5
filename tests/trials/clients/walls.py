"""What the clients in Python ask for, and the loop that runs what a client does, by name."""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Ends the process where a name is looked up or a connection opened beyond this machine."""
    if event == "socket.connect" and arguments[1][0] != "127.0.0.1":
        raise SystemExit(f"OUTBOUND {arguments[1:]}")
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        raise SystemExit(f"OUTBOUND {arguments}")


sys.addaudithook(watch)
URL = sys.argv[1]
QUESTION = "Make the wall nice."
CUT = '{"colour": "red", "coats":'
WRONG = "Error: the arguments are not JSON"


class Paint(BaseModel):
    """Paint a wall."""

    colour: Literal["red", "green", "blue"]
    coats: int = Field(ge=1, le=3)


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: int = Field(ge=1, le=9)


class Square(BaseModel):
    kind: Literal["square"]
    side: int = Field(ge=1, le=9)
    is_filled: bool


class Draw(BaseModel):
    """Draw a shape on a wall."""

    shape: Annotated[Circle | Square, Field(discriminator="kind")]


PLAIN = {
    "type": "function",
    "function": {
        "name": "Paint",
        "description": "Paint a wall.",
        "parameters": Paint.model_json_schema(),
    },
}


def run_all(*asked: Callable[[], Any]) -> None:
    """Print what each function returns or raises, a line each, by the function's name."""
    for ask in asked:
        try:
            found = {"name": ask.__name__, "found": ask()}
        except Exception:
            found = {"name": ask.__name__, "error": traceback.format_exc(limit=-1)[-2000:]}
        print(json.dumps(found), flush=True)
