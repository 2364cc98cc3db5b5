"""Calls in the text of a model's turn, in every notation that is known.

A text with a call is read, or its row is dropped; it is never taken for one that calls nothing. A
call shows by the marker of a notation, by being JSON or Python of its own, or by the name of an
offered tool where only a call has it. What is quoted in a sentence, or in a model's thoughts, is
none.

Source: the chat templates of Hermes, Qwen, Llama, Mistral, DeepSeek, Granite, Phi, Kimi, GLM,
MiniMax, Cohere, GPT-OSS, LFM2, Olmo, Jamba, InternLM, Gemma and FunctionGemma; the datasets of
Glaive, ToolACE, When2Call and ToolBench.
"""

import heapq
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from calltune.data.readers.calls import UnusableCall, read_calls
from calltune.data.readers.offer import RowTools
from calltune.data.readers.payloads import (
    UNREADABLE,
    LocatedCalls,
    json_calls,
    python_calls,
    read_payload,
)
from calltune.data.readers.values import locate_value
from calltune.types import ToolCall


class TurnText(NamedTuple):
    """The text of a model's turn: its words, and the calls in it."""

    words: str
    calls: tuple[ToolCall, ...]


def read_turn(text: str, offer: RowTools) -> TurnText:
    """The words and the calls of a model's turn.

    Raises:
        UnusableCall: there is a call that cannot be read.
    """
    closing = _unopened_end(text)
    if closing is None:
        return _read_from(text, 0, offer)
    # The prompt had the opening tag, or a string in a call has this closing one.
    before = text[: closing.start()]
    try:
        whole = _read_from(text, 0, offer)
    except UnusableCall:
        begun = next(_openings(before, 0, offer), None)
        if begun is None or _BODY.search(before, begun.start()):
            raise
        return _read_from(text, closing.end(), offer)
    if whole.calls and _read_from(before, 0, offer).calls:
        raise UnusableCall("call before the end of thoughts that did not begin", text)
    return whole


def _unopened_end(text: str) -> re.Match[str] | None:
    """Where thoughts end whose beginning the text does not have."""
    closing = _END_OF_THOUGHTS.search(text)
    if closing is None or _BEGIN_OF_THOUGHTS.search(text, 0, closing.start()):
        return None
    return closing


def _read_from(text: str, start: int, offer: RowTools) -> TurnText:
    if not _MAY_CALL.search(text):
        return TurnText(text, ())
    words, calls = [text[:start]], list[ToolCall]()
    at = start
    thoughts = _thoughts(text, start)
    for opening in _openings(text, start, offer):
        # What looks like thoughts within a call's string is none.
        if opening.start() < at or any(at <= s <= opening.start() < e for s, e in thoughts):
            continue
        found = _calls_at(text, opening, offer)
        if found is None:
            continue
        words.append(text[at : opening.start()])
        calls.extend(found.calls)
        at = found.end
    if not calls:
        return TurnText(text, ())
    words.append(text[at:])
    return TurnText("\n".join(filter(None, map(str.strip, words))), tuple(calls))


_TAG = (
    # <tool_call>, <functioncall>, <|tool_call_start|>, <｜tool▁calls▁begin｜>, <seed:tool_call> …
    r"(?!<[\w:]+\|>)<[|｜]?(?!end[_▁])(?:[\w:｜|-]*[_:▁｜|])?(?:tool|function)s?[_▁ -]?"
    r"(?:calls?|use|uses|invoke|request|action)(?:[_▁]section)?s?(?:[_▁](?:begin|start))?[|｜]?>"
)
_MARK = re.compile(
    rf"(?:{_TAG}"
    r"|\[TOOL_?(?:CALLS?|REQUEST)\]|<\|python_(?:tag|start)\|>|<\|action_start\|>"
    r"|<\|plugin\|>|<\|START_ACTION\|>|<\|tools_prefix\|>|<\|recipient\|>(?!\s*all\b)"
    r"|\bfunctools(?=\s*\[)|✿FUNCTION✿:"
    r"|to=functions\.(?=[\w.-])"
    r"|^[ \t]*Action:(?=\s*```|[^\n]*\n\s*Action Input:)"
    r"|```tool_(?:code|calls?)"
    # Where one of these is left over, the beginning of a call was damaged.
    r"|Action Input:|✿ARGS✿|\[ARGS\]|<\|tool_call_argument_begin\|>|<｜tool▁sep｜>"
    r"|</(?:[｜|]\w+[｜|])?(?:tool_calls?|function_?calls?|function|invoke|parameter|arg_value)>"
    r"|<(?:[｜|]\w+[｜|])?(?:parameter[ =]|invoke\b(?!\s+name=)|arg_key>|end_function_call>)"
    r"|<\|constrain\|>|<\|tools_suffix\|>|</TOOLCALL>"
    r"|<[|｜]/?(?:tool|function)[_▁]calls?[_▁]?(?:section[_▁])?(?:end)?[|｜]>"
    r"|[\"'](?:arguments|parameters|kwargs|tool_input|action_input)[\"']\s*:\s*[\"'{\[]"
    r"|(?P<itself><(?:[｜|]\w+[｜|])?(?=function=|invoke\s+name=)))",
    re.IGNORECASE | re.MULTILINE,
)
_MARKS = re.compile(rf"(?:(?:{_TAG}|<\|plugin\|>)\s*)+", re.IGNORECASE)
_VALUE = re.compile(
    r"(?:^[ \t]*|(?<=:)[ \t]+)(?=[\[{])|```\w*\s*(?=[\[{]|print\(|\w[\w.]*\()", re.MULTILINE
)
_MAY_CALL = re.compile(r"[<\[{(✿`]|Action:|functions\.")
_DECORATION = re.compile(
    r"[\s,;:]+|```(?:\w+\n)?|</?[|｜]?[\w▁]+[|｜]?>|function(?=<｜)|<\|constrain\|>json"
)
_CLOSING = re.compile(
    r"\s*(?:</[^<>\s]+>|<[|｜]/?[^<>\s]*[|｜]>|<[a-z_]+\|>"
    r"|<end_[a-z_]+>|<start_function_response>|<eos>|Observation:|✿RESULT✿"
    r"|\[/TOOL_[A-Z]+\]|</s>|```)"
)
_THOUGHTS = {
    **{
        f"<{tag}>": f"</{tag}>"
        for tag in ("think", "thinking", "thought", "thoughts", "reasoning", "reflection")
        + ("scratchpad", "scratch_pad", "analysis")
    },
    "[think]": "[/think]",
    "<|start_thinking|>": "<|end_thinking|>",
    "<|channel|>analysis<|message|>": "<|end|>",
}
"""What thoughts begin with, in lower case, and what they end with."""
_THOUGHTS_BEGIN = re.compile("|".join(map(re.escape, _THOUGHTS)), re.IGNORECASE)
_BEGIN_OF_THOUGHTS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_END_OF_THOUGHTS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_BODY = re.compile(r"[{\[(]|<(?:function=|invoke|parameter|arg_)")
"""How the body of a call begins, behind its marker."""
_QUOTED = re.compile(r"\"[^\"\n]*\"|`[^`\n]+`|“[^”\n]*”|«[^»\n]*»|(?<!\w)'[^'\n]*'(?!\w)")


def _thoughts(text: str, at: int) -> list[tuple[int, int]]:
    """Where thoughts begin and end; those that do not end are none."""
    found: list[tuple[int, int]] = []
    unclosed: set[str] = set()
    while (opening := _THOUGHTS_BEGIN.search(text, at)) is not None:
        mark, at = _THOUGHTS[opening[0].lower()], opening.end()
        if mark in unclosed:
            continue
        closing = re.compile(re.escape(mark), re.IGNORECASE).search(text, at)
        if closing is None:
            unclosed.add(mark)
        else:
            at = closing.end()
            found.append((opening.start(), at))
    return found


def _openings(text: str, at: int, offer: RowTools) -> Iterator[re.Match[str]]:
    """Where calls may begin, in order, outside quotes."""
    names = [_in_call_position(name) for name in offer.by_name if name in text]
    patterns = [_MARK, _VALUE, *names]
    found = heapq.merge(*(p.finditer(text, at) for p in patterns), key=lambda m: m.start())
    quoted: list[tuple[int, int]] | None = None
    for match in found:
        if match.re is not _VALUE:
            if quoted is None:
                quoted = [(m.start(), m.end()) for m in _QUOTED.finditer(text)]
            if any(_is_quoted(text, match, start, end) for start, end in quoted):
                continue
        yield match


def _is_quoted(text: str, match: re.Match[str], start: int, end: int) -> bool:
    """Whether a sentence quotes the marker or the name: nothing of a call's body is inside."""
    if not (start < match.start() and match.end() <= end):
        return False
    if match.re is _MARK:
        return not re.search(r"[{\[(]", text[match.end() : end])
    inside = text[start:end]
    return inside.count("(") == inside.count(")") and "{" not in inside


@lru_cache(maxsize=512)
def _in_call_position(name: str) -> re.Pattern[str]:
    """Where a tool's name stands as only a call has it."""
    escaped = re.escape(name)
    return re.compile(
        rf"(?<![\w.-])(?:[A-Za-z_]\w*\.)?{escaped}\("
        rf"|(?:name|tool|function|action|tool_name|function_name|recipient_name)[\"']?\s*[:=]\s*"
        rf"[\"'](?:functions\.)?{escaped}[\"']"
        rf"|[\"']{escaped}[\"']\s*:\s*\{{|{escaped}\{{"
        rf"|<{escaped}\s*/?>|{escaped}[\"']?\s*>|\bcall:\s*{escaped}\b"
        rf"|^[ \t]*(?:Action|Tool|Function|Call)\s*:\s*{escaped}\s*$"
        rf"|(?<![\w.-]){escaped}\s*[:=]?\s*(?:```(?:json)?\s*)?\{{\s*[\"'}}]",
        re.MULTILINE,
    )


def _calls_at(text: str, opening: re.Match[str], offer: RowTools) -> LocatedCalls | None:
    """The calls that begin at an opening; None where it was none of a call.

    Raises:
        UnusableCall: it is one of a call, and the call cannot be read.
    """
    if opening.re is _VALUE:
        return _value_calls(text, opening, offer)
    if opening.re is not _MARK:
        return _calls_by_name(text, opening, offer)
    at = opening.start() if opening["itself"] else opening.end()
    first = _payload_after(text, at, offer)
    if first is None:
        raise UnusableCall(UNREADABLE, text[opening.start() :])
    return _and_following(text, first, offer, is_marked=True)


def _payload_after(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """The calls at `at`, or after further marks, fences and tags that stand before them."""
    while True:
        if (found := read_payload(text, at, offer)) is not None:
            return found
        skipped = _MARKS.match(text, at) or _DECORATION.match(text, at)
        if skipped is None or skipped.end() == at or skipped[0].startswith("</"):
            break
        at = skipped.end()
    # Behind a marker any JSON was meant as a call: what is wrong with it, `read_calls` says.
    value = locate_value(text, at) if text[at : at + 1] in ("{", "[") else None
    return None if value is None else LocatedCalls(read_calls(value.value, offer), value.end)


def _value_calls(text: str, opening: re.Match[str], offer: RowTools) -> LocatedCalls | None:
    """Calls as JSON or Python that begin a line or a fenced block."""
    found = json_calls(text, opening.end(), offer)
    if found is None:
        start = re.compile(r"\s*(?:print\s*\()?\s*\[?\s*").match(text, opening.end())
        assert start is not None
        if any(text.startswith(f"{name}(", start.end()) for name in offer.by_name):
            found = python_calls(text, opening.end(), offer)
    if found is None or not found.calls:
        return None
    return _and_following(text, found, offer, is_marked=False)


def _calls_by_name(text: str, opening: re.Match[str], offer: RowTools) -> LocatedCalls:
    """Calls that show by the name of their tool alone.

    Raises:
        UnusableCall: they stand within a sentence, or cannot be read.
    """
    line = text.rfind("\n", 0, opening.start()) + 1
    before = text[line : opening.start()].strip()
    if opening[0].endswith("(") and before in ("", "print("):
        found = python_calls(text, line, offer)
    else:
        found = _enclosing_json(text, opening.start(), offer)
        if found is None and not before:
            found = read_payload(text, opening.start(), offer)
    if found is None:
        raise UnusableCall("name of a tool as in a call", text[opening.start() :])
    return _and_following(text, found, offer, is_marked=False)


def _enclosing_json(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """The JSON call around a position, where only its beginning stood within a line."""
    start = at
    for _ in range(3):
        start = text.rfind("{", 0, start)
        if start < 0 or text[start:at].count("\n") > 3:
            return None
        found = json_calls(text, start, offer)
        if found is not None and found.calls and found.end > at:
            return found
    return None


def _and_following(
    text: str, first: LocatedCalls, offer: RowTools, is_marked: bool
) -> LocatedCalls:
    """The calls with those that follow at once, and the tags that close them.

    Raises:
        UnusableCall: what stands between a marker and its closing tag is more than calls.
    """
    calls, end = list(first.calls), first.end
    while True:
        between = re.compile(r"[\s,;]*").match(text, end)
        assert between is not None
        at = between.end()
        more = read_payload(text, at, offer) if text[at : at + 1] in ("{", "<") else None
        if more is None or not more.calls:
            break
        calls.extend(more.calls)
        end = more.end
    rest = text[end:].lstrip()
    if is_marked and rest and not (_CLOSING.match(rest) or _MARK.match(rest)):
        raise UnusableCall("text after a call", rest)
    while (closing := _CLOSING.match(text, end)) is not None and not _MARKS.match(
        text, closing.start() + len(closing[0]) - len(closing[0].lstrip())
    ):
        end = closing.end()
    return LocatedCalls(tuple(calls), end)
