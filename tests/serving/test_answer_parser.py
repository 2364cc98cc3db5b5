from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from calltune.formats import FORMATS
from calltune.serving.answer_parser import (
    AnswerParser,
    CompletedCall,
    Detokenizer,
    Event,
    Finished,
    TextDelta,
)
from calltune.types import ToolCall

CALLS = (ToolCall("f", {"x": 1, "text": "a ] } \u20ac"}), ToolCall("g", {}))


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return load_tokenizer(tiny_llama)


def read(
    tokenizer: Any,
    prompt_format: str,
    text: str,
    cuts: list[int],
    is_complete: bool = True,
    **more: Any,
) -> list[Event]:
    """The events of a text that comes in pieces; neighbouring words put together."""
    parser = AnswerParser(tokenizer, FORMATS[prompt_format], more.pop("can_call", True), **more)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    events: list[Event] = []
    edges = [0, *sorted(cut % (len(tokens) + 1) for cut in cuts), len(tokens)]
    for start, end in zip(edges, edges[1:], strict=False):
        events += parser.feed(tokens[start:end])
    events += parser.finish(is_complete)
    joined: list[Event] = []
    for event in events:
        if joined and isinstance(event, TextDelta) and isinstance(joined[-1], TextDelta):
            joined[-1] = TextDelta(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined


CUTS = st.lists(st.integers(0, 10_000), max_size=30)


@pytest.mark.parametrize("prompt_format", list(FORMATS))
@given(cuts=CUTS)
def test_calls_come_out_however_the_text_is_cut(
    tokenizer: Any, prompt_format: str, cuts: Any
) -> None:
    found = read(tokenizer, prompt_format, FORMATS[prompt_format].render_calls(CALLS), cuts)
    assert found == [*map(CompletedCall, CALLS), Finished("tool_calls")]


@pytest.mark.parametrize("prompt_format", list(FORMATS))
@given(text=st.text(min_size=1), cuts=CUTS, can_call=st.booleans())
def test_words_come_out_whole(
    tokenizer: Any, prompt_format: str, text: str, cuts: Any, can_call: bool
) -> None:
    text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    if text and not text.startswith(FORMATS[prompt_format].call_prefix):
        found = read(tokenizer, prompt_format, text, cuts, can_call=can_call)
        assert found == [TextDelta(text), Finished("stop")]


@pytest.mark.parametrize("prompt_format", list(FORMATS))
@given(end=st.integers(1, 10_000), cuts=CUTS)
def test_calls_that_a_limit_cuts_short_lose_nothing(
    tokenizer: Any, prompt_format: str, end: int, cuts: Any
) -> None:
    whole = FORMATS[prompt_format].render_calls(CALLS)
    text = whole[: 1 + end % len(whole)]
    found = read(tokenizer, prompt_format, text, cuts, is_complete=False)
    assert found[-1] == Finished("length")
    calls = [event.call for event in found if isinstance(event, CompletedCall)]
    words = "".join(event.text for event in found if isinstance(event, TextDelta))
    assert calls == list(CALLS[: len(calls)])
    # What was not read as a call is in the text, to the last character.
    assert text.endswith(words) and (calls or words == text)


@given(text=st.text("abx", min_size=1), stops=st.lists(st.text("abx", min_size=1), max_size=3))
def test_words_end_before_the_first_stop_string(tokenizer: Any, text: str, stops: Any) -> None:
    found = read(tokenizer, "chatml", text, list(range(len(text))), stop_strings=stops)
    written = "".join(event.text for event in found if isinstance(event, TextDelta))
    if not any(stop in text for stop in stops):
        assert written == text
    else:
        assert not any(stop in written for stop in stops) and text.startswith(written)
    assert found[-1] == Finished("stop")


@given(text=st.text(), cuts=CUTS)
def test_the_parts_of_a_text_make_the_whole(tokenizer: Any, text: str, cuts: Any) -> None:
    tokens = tokenizer.encode(text, add_special_tokens=False)
    parts = Detokenizer(tokenizer)
    edges = [0, *sorted(cut % (len(tokens) + 1) for cut in cuts), len(tokens)]
    written = [parts.feed(tokens[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    assert "".join(written) + parts.finish() == tokenizer.decode(tokens)


def test_no_call_and_a_call_that_cannot_be_read(tokenizer: Any) -> None:
    none = FORMATS["chatml"].render_calls(())
    parser = AnswerParser(tokenizer, FORMATS["chatml"], True)
    events = [*parser.feed(tokenizer.encode(none)), *parser.finish(True)]
    assert events == [Finished("stop")] and parser.wrote_calls and not parser.calls
    broken = '<tool_call>\n{"name": "f", "arguments": 5}\n</tool_call>'
    assert read(tokenizer, "chatml", broken, []) == [TextDelta(broken), Finished("stop")]
