"""Questions with distinguishable answers: each has a unique number and a city."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# fmt: off
CITIES = [
    "Aarhus", "Bilbao", "Cork", "Dresden", "Erfurt", "Florence", "Geneva", "Haifa", "Izmir",
    "Jaipur", "Kyoto", "Lima", "Malaga", "Nantes", "Oslo", "Porto", "Quito", "Riga", "Sofia",
    "Tampere", "Utrecht", "Vienna", "Warsaw", "Xiamen", "York", "Zagreb",
]
# fmt: on


def _tool(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


_CITY = {"type": "string", "description": "The name of the city."}
TOOLS = [
    _tool(
        "get_weather",
        "Get the weather forecast of a city.",
        {"city": _CITY, "days": {"type": "integer", "description": "How many days to forecast."}},
    ),
    _tool(
        "order_status",
        "Get the status of an order.",
        {"order_id": {"type": "integer", "description": "The order's number."}, "city": _CITY},
    ),
    _tool(
        "hotel_search",
        "Search hotels in a city up to a price a night.",
        {"city": _CITY, "max_price": {"type": "integer", "description": "The highest price."}},
    ),
]
"""The tools that every request offers."""

_WORDINGS = (
    "Search hotels in {city} with a maximum price of {number}.",
    "What is the status of order {number} to {city}?",
    "Find me a hotel in {city} up to {number} a night.",
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with the number and city that identify its answer."""

    number: int
    city: str
    text: str

    def body(self, model: str, is_streamed: bool, max_tokens: int = 96) -> dict[str, Any]:
        """The request's body, for greedy decoding."""
        asked = {
            "model": model,
            "messages": [{"role": "user", "content": self.text}],
            "tools": TOOLS,
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": is_streamed,
        }
        return asked | ({"stream_options": {"include_usage": True}} if is_streamed else {})


def make_questions(count: int) -> list[Question]:
    """`count` different questions; their numbers have four digits and are far apart."""
    made = []
    for i in range(count):
        number, city = 1000 + (i * 3671) % 9000, CITIES[i % len(CITIES)]
        wording = _WORDINGS[i % len(_WORDINGS)]
        made.append(Question(number, city, wording.format(city=city, number=number)))
    assert len({question.number for question in made}) == count, count
    return made


def answer_text(calls: Sequence[dict[str, Any]], content: str) -> str:
    """An answer in a form to compare: its calls with parsed arguments, or its text."""
    return json.dumps([[call["name"], _read(call["arguments"])] for call in calls] or content)


def owner(text: str, questions: Sequence[Question]) -> Question | None:
    """The question whose number the answer contains; None if there is not exactly one."""
    found = [question for question in questions if str(question.number) in text]
    return found[0] if len(found) == 1 else None


def is_mixed_up(question: Question, text: str, questions: Sequence[Question]) -> bool:
    """Whether the answer contains the number and city of another question."""
    whose = owner(text, questions)
    return whose is not None and whose != question and whose.city in text


def _read(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
