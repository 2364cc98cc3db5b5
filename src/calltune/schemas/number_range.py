"""Bounds of numbers as regular expressions, for numbers of any size and in either notation.

A bound becomes an expression without a limit on digits; a grammar takes what matches all bounds and
the notation of numbers. llguidance's own ranges end at 64 bits, and lack the exponents that Python
writes for large and small numbers.

Source: JSON's numbers, RFC 8259, section 6.
"""

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

N_DIGITS = 30
"""How many digits a number has at most before the point; one less after it."""
MAX_DIGITS = 80
"""Bounds with more digits than these are not enforced; a float has 17."""
_FRACTIONS = "|".join(rf"[0-9]{{{n}}}\.[0-9]{{0,{14 - n}}}[1-9]" for n in range(1, 15))
NOT_WHOLE = rf"-?(?:{_FRACTIONS}|[1-9](?:\.[0-9]{{1,13}})?e-[0-9]+)"
"""A number that is no integer, of so few digits that none becomes one when it is read."""
_FRACTION = r"(?:\.[0-9]+)?"
_ANY = rf"[0-9]+{_FRACTION}(?:e[+\-][0-9]+)?"


class Bound(NamedTuple):
    """One bound of a number."""

    value: Decimal
    is_upper: bool
    is_exclusive: bool = False


def bound_regex(bound: Bound) -> str:
    """The regular expression of the numbers within a bound; it does not look at their notation.

    The bounds of integers are to be whole: `whole_bound`.
    """
    size, is_exclusive = abs(bound.value), bound.is_exclusive
    is_beyond_zero = bound.value > 0 if bound.is_upper else bound.value < 0
    sign = "" if bound.is_upper else "-"
    if not is_beyond_zero and (size or is_exclusive):
        other = "-" if bound.is_upper else ""
        return other + _compared(size, is_upper=False, is_strict=is_exclusive)
    within = _compared(size, is_upper=True, is_strict=is_exclusive)
    return f"(?:{sign}{within}|{'' if sign else '-'}{_ANY})"


def multiple_regex(divisor: int) -> str | None:
    """The expression of the integers that `divisor` divides, where their last digits show it."""
    for n_digits in range(1, 4):
        if 10**n_digits % divisor == 0:
            short = (str(k) for k in range(0, 10 ** (n_digits - 1), divisor))
            ends = (f"{k:0{n_digits}d}" for k in range(0, 10**n_digits, divisor))
            return f"-?(?:{'|'.join(short)}|[0-9]*(?:{'|'.join(ends)}))"
    return None


def whole_bound(bound: Bound) -> Bound:
    """The bound that means the same for integers, and is itself within."""
    step = -1 if bound.is_upper else 1
    inward = ROUND_FLOOR if bound.is_upper else ROUND_CEILING
    value = Decimal(int(bound.value.to_integral_value(inward)))
    is_off = bound.is_exclusive and value == bound.value
    return Bound(Decimal(int(value) + step) if is_off else value, bound.is_upper)


def _compared(size: Decimal, is_upper: bool, is_strict: bool) -> str:
    """Numbers without a sign up to a size, or from it on."""
    power = size.adjusted()
    if power >= N_DIGITS:
        forms: list[str | None] = [rf"[0-9]+{_FRACTION}"] if is_upper else []
    elif size and power <= -N_DIGITS:
        # Of numbers with so few digits only 0 is smaller.
        forms = [_plain("0", "", is_upper, is_strict=not is_upper)]
    else:
        whole, _, fraction = f"{size:f}".partition(".")
        forms = [_plain(whole, fraction.rstrip("0"), is_upper, is_strict)]
    if not size:
        forms += [] if is_upper else [rf"[1-9]{_FRACTION}e[+\-][0-9]+"]
        return _one_of(forms)
    digits = "".join(map(str, size.as_tuple().digits)).lstrip("0")
    mantissa = _mantissa(digits[0], digits[1:].rstrip("0"), is_upper, is_strict)
    forms += [rf"[1-9]{_FRACTION}e{_powers(power, is_upper)}"]
    if mantissa and power:
        forms += [f"{mantissa}e[{'+' if power > 0 else '-'}]0?{abs(power)}"]
    return _one_of(forms)


def _plain(whole: str, fraction: str, is_upper: bool, is_strict: bool) -> str | None:
    """Numbers without an exponent, compared with one of these digits."""
    same = _mantissa(whole, fraction, is_upper, is_strict)
    if not is_upper:
        return _one_of([same, f"[1-9][0-9]{{{len(whole)},}}{_FRACTION}"])
    shorter = f"(?:0|[1-9][0-9]{{0,{len(whole) - 2}}}){_FRACTION}" if len(whole) > 1 else None
    return _one_of([same, shorter]) if same or shorter else None


def _mantissa(whole: str, fraction: str, is_upper: bool, is_strict: bool) -> str | None:
    """As `_plain`, of those with as many digits before the point."""
    equal: str | None
    if fraction:
        equal = _fraction(fraction, is_upper, is_strict)
        equal = rf"(?:\.{equal})?" if is_upper else rf"\.{equal}"
    elif is_upper:
        equal = None if is_strict else r"(?:\.0+)?"
    else:
        equal = r"\.[0-9]*[1-9][0-9]*" if is_strict else _FRACTION
    return _nested(whole, is_upper, equal, lambda n_left: f"[0-9]{{{n_left}}}{_FRACTION}")


def _fraction(digits: str, is_upper: bool, is_strict: bool) -> str:
    """Digits after the point; `digits` do not end with 0."""
    if is_upper:
        equal = None if is_strict else "0*"
        found = _nested(digits, is_upper, equal, lambda _: "[0-9]*", may_end=True)
    else:
        equal = "[0-9]*[1-9][0-9]*" if is_strict else "[0-9]*"
        found = _nested(digits, is_upper, equal, lambda _: "[0-9]*")
    assert found is not None, digits
    return found


def _nested(
    digits: str,
    is_upper: bool,
    equal: str | None,
    rest: Callable[[int], str],
    may_end: bool = False,
) -> str | None:
    """Digits compared with `digits` one by one.

    `equal` follows where all are equal (None: that is outside), `rest(n)` the first that differs,
    with n digits to come. With `may_end` they may end before.
    """
    found = equal
    for index in reversed(range(len(digits))):
        digit = int(digits[index])
        low, high = (0, digit - 1) if is_upper else (digit + 1, 9)
        parts = [] if found is None else [f"{digit}{found}"]
        if low <= high:
            parts.append(f"[{low}-{high}]{rest(len(digits) - index - 1)}")
        if may_end:
            parts.append("")
        found = f"(?:{'|'.join(parts)})" if parts else None
    return found


def _powers(power: int, is_upper: bool) -> str:
    """The exponents below or above `power`, with their signs."""
    if is_upper:
        if power <= 0:
            return f"-0?{_plain_integer(1 - power, is_upper=False)}"
        return rf"(?:-[0-9]+|\+0?{_plain_integer(power - 1, is_upper=True)})"
    if power >= 0:
        return rf"\+0?{_plain_integer(power + 1, is_upper=False)}"
    return rf"(?:\+[0-9]+|-0?{_plain_integer(-power - 1, is_upper=True)})"


def _plain_integer(size: int, is_upper: bool) -> str:
    found = _plain(str(size), "", is_upper, is_strict=False)
    assert found is not None, size
    return found


def _one_of(forms: Sequence[str | None]) -> str:
    return f"(?:{'|'.join(form for form in forms if form)})"
