"""Grammar rules for values without parts, plain or in a string: strings, numbers, fixed values."""

import math
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any

from calltune.files import dumps
from calltune.schemas.exclusion import EXCLUDED, NOT_INTEGER, Unsatisfiable
from calltune.schemas.keywords import Schema
from calltune.schemas.lark import LarkGrammar, is_compilable, literal, one_of
from calltune.schemas.number_range import (
    MAX_DIGITS,
    N_DIGITS,
    NOT_WHOLE,
    Bound,
    bound_regex,
    multiple_regex,
    whole_bound,
)
from calltune.schemas.pattern import translate
from calltune.schemas.pattern_parser import UnsupportedPattern
from calltune.types import Json

MAX_ENFORCED_LENGTH = 1_000_000
"""No answer has a longer string or more items, so larger limits hold without a grammar."""
MAX_ENFORCED_MINIMUM = 2_000
"""Larger smallest lengths and counts are not enforced: they would be written without end."""
_INTEGER = r"/-?(0|[1-9][0-9]{0,29})/"
_NUMBER = (
    r"/-?((0|[1-9][0-9]{0,29})(\.[0-9]{1,29})?"
    r"|[1-9](\.[0-9]{1,29})?e[+-](0[1-9]|[1-9][0-9]|[12][0-9]{2}|30[0-7]))/"
)
"""Bounded (`N_DIGITS`), so that a model cannot write digits without end."""
_LARGEST_MULTIPLE = 10**18
"""Limit of numbers whose `multipleOf` llguidance enforces."""
_CHARACTER = (
    r"""([^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])""",
    r"""([^"\\\x00-\x1f]|\\\\(\\"|\\\\|[bfnrt]|u00[01][0-9a-f]))""",
)
_QUOTE = ('"', r"\\" + '"')
_BOUNDS = {
    "minimum": (False, False),
    "exclusiveMinimum": (False, True),
    "maximum": (True, False),
    "exclusiveMaximum": (True, True),
}
"""Each keyword's `is_upper` and `is_exclusive`."""


class Scalars:
    """Makes the rules for values without parts."""

    def __init__(
        self,
        lark: LarkGrammar,
        is_quoted: bool,
        control_tokens: Collection[str],
        note: Callable[[str], None],
    ) -> None:
        """Values that hold one of `control_tokens` cannot be written."""
        self._lark = lark
        self._is_quoted = is_quoted
        self._control_tokens = control_tokens
        self._note = note

    def literal(self, text: str) -> str:
        """The body that matches exactly this JSON text.

        Raises:
            Unsatisfiable: it holds a control token, where the answer would end.
        """
        if token := next((each for each in self._control_tokens if each in text), None):
            self._note(f"a name or value with the control token {token}")
            raise Unsatisfiable
        return literal(self._written(text))

    def fixed(self, values: Collection[Json]) -> str:
        """The body that matches one of these values.

        Raises:
            Unsatisfiable: none of them can be written.
        """
        bodies = []
        for value in values:
            try:
                bodies.append(self.literal(dumps(value)))
            except Unsatisfiable:
                continue
        if not bodies:
            raise Unsatisfiable
        return one_of(bodies)

    def string(self, schema: Schema) -> str:
        """The terminal for the strings of a schema.

        Raises:
            Unsatisfiable: there is none.
        """
        counts = self.counts(schema, "minLength", "maxLength")
        others = self.without([each for each in schema.get(EXCLUDED, ()) if isinstance(each, str)])
        pattern = self._pattern(schema)
        if pattern is None or counts == (0, None):
            first = pattern or self._of_length(*counts)
            return self._lark.terminal(" & ".join([first, *others]))
        both = " & ".join([self._of_length(*counts), pattern, *others])
        if is_compilable(both):
            return self._lark.terminal(both)
        for keyword in ("minLength", "maxLength"):
            if keyword in schema:
                self._note(f"{keyword} (beside this pattern)")
        return self._lark.terminal(" & ".join([pattern, *others]))

    def without(self, texts: Collection[str]) -> list[str]:
        """What to intersect a terminal for strings with to exclude these; none for none."""
        if not texts:
            return []
        return [f"~{one_of(literal(self._written(dumps(text))) for text in texts)}"]

    def matching(self, pattern: str) -> str:
        """The terminal's body for the strings that a regular expression matches.

        Raises:
            UnsupportedPattern: no grammar can hold a string to it.
        """

        def write(character: str) -> str:
            return self._written(dumps(character)[1:-1])

        quote = _QUOTE[self._is_quoted]
        regex = translate(pattern, write, _CHARACTER[self._is_quoted])
        body = f"/{quote}{regex}{quote}/"
        if not is_compilable(body):
            raise UnsupportedPattern("too large")
        return body

    def number(self, kind: str, schema: Schema) -> str:
        """The body for the integers or numbers of a schema.

        Raises:
            Unsatisfiable: there is none.
        """
        is_integer = kind == "integer"
        if is_integer and NOT_INTEGER in schema:
            raise Unsatisfiable
        bounds = self._bounds(schema, is_integer)
        if _are_apart(bounds):
            raise Unsatisfiable
        excluded = [each for each in schema.get(EXCLUDED, ()) if _is_number(each)]
        regexes = [bound_regex(bound) for bound in bounds]
        regexes += [NOT_WHOLE] if NOT_INTEGER in schema else []
        if divisor := _divisor(schema, is_integer):
            regex = multiple_regex(int(divisor)) if divisor == int(divisor) and is_integer else None
            if regex is None and _has_json_bounds(bounds) and not excluded:
                return self._multiple(kind, schema)
            if regex is None:
                self._note("multipleOf")
            else:
                regexes.append(regex)
        parts = [_INTEGER if is_integer else _NUMBER, *(f"/{regex}/" for regex in regexes)]
        if excluded:
            # A number has many spellings with an exponent.
            regex = "|".join(_spellings(value) for value in excluded)
            parts.append(f"~/{regex}/" if is_integer else f"~/{regex}|.*e.*/")
        return self._lark.terminal(" & ".join(parts))

    def counts(self, schema: Schema, min_keyword: str, max_keyword: str) -> tuple[int, int | None]:
        """The smallest and the largest count; those too large to be enforced are left out.

        Raises:
            Unsatisfiable: the largest is smaller.
        """
        min_count, max_count = schema.get(min_keyword, 0), schema.get(max_keyword)
        if min_count > MAX_ENFORCED_MINIMUM:
            self._note(min_keyword)
            min_count = 0
        if max_count is not None and max_count > MAX_ENFORCED_LENGTH:
            max_count = None
        if max_count is not None and max_count < min_count:
            raise Unsatisfiable
        return int(min_count), None if max_count is None else int(max_count)

    def _written(self, text: str) -> str:
        return dumps(text)[1:-1] if self._is_quoted else text

    def _of_length(self, min_count: int, max_count: int | None) -> str:
        is_any = (min_count, max_count) == (0, None)
        count = "*" if is_any else f"{{{min_count},{'' if max_count is None else max_count}}}"
        quote = _QUOTE[self._is_quoted]
        return f"/{quote}{_CHARACTER[self._is_quoted]}{count}{quote}/"

    def _pattern(self, schema: Schema) -> str | None:
        """The terminal's body for the strings that a schema's pattern matches; None without one."""
        if "pattern" not in schema:
            return None
        try:
            return self.matching(schema["pattern"])
        except UnsupportedPattern as reason:
            self._note(f"pattern ({reason})")
            return None

    def _bounds(self, schema: Schema, is_integer: bool) -> list[Bound]:
        found = []
        for keyword, (is_upper, is_exclusive) in _BOUNDS.items():
            value = schema.get(keyword)
            if value is None:
                continue
            if not _is_number(value) or len(Decimal(str(value)).as_tuple().digits) > MAX_DIGITS:
                self._note(keyword)
                continue
            bound = Bound(Decimal(str(value)), is_upper, is_exclusive)
            if is_integer and bound.value.adjusted() >= N_DIGITS:
                # No integer is written with so many digits, so some bounds say nothing.
                if (bound.value > 0) != is_upper:
                    self._note(keyword)
                continue
            found.append(whole_bound(bound) if is_integer else bound)
        return found

    def _multiple(self, kind: str, schema: Schema) -> str:
        """The rule that llguidance has for multiples, between bounds that it can compute with."""
        keywords = {key: schema[key] for key in (*_BOUNDS, "multipleOf") if key in schema}
        if not keywords.keys() & {"minimum", "exclusiveMinimum"}:
            keywords["minimum"] = -_LARGEST_MULTIPLE
        if not keywords.keys() & {"maximum", "exclusiveMaximum"}:
            keywords["maximum"] = _LARGEST_MULTIPLE
        return f"%json {dumps({'type': kind} | keywords)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_apart(bounds: Collection[Bound]) -> bool:
    """Whether no number is within these bounds."""
    return any(
        low.value > high.value
        or (low.value == high.value and (low.is_exclusive or high.is_exclusive))
        for low in bounds
        for high in bounds
        if high.is_upper and not low.is_upper
    )


def _divisor(schema: Schema, is_integer: bool) -> Decimal | None:
    """The schema's `multipleOf`, if it excludes a number."""
    value = schema.get("multipleOf")
    if value is None:
        return None
    divisor = Decimal(str(value))
    return None if is_integer and 1 % divisor == 0 else divisor


def _has_json_bounds(bounds: Collection[Bound]) -> bool:
    return all(abs(bound.value) <= _LARGEST_MULTIPLE for bound in bounds)


def _spellings(value: Any) -> str:
    """The regular expression of a number without an exponent."""
    whole, _, fraction = f"{Decimal(str(value)):f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}" + (rf"\.{fraction}0*" if fraction else r"(\.0+)?")
