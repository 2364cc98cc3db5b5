"""Verdicts as results files have them."""

from calltune.types import Json


def verdict(is_exact: bool, **changes: Json) -> dict[str, Json]:
    """One on an example that needs one call of one argument; readable unless it says otherwise."""
    right = int(is_exact)
    usual = {
        "is_exact": is_exact,
        "is_ast": is_exact,
        "has_right_names": is_exact,
        "is_parsed": True,
        "is_valid": True,
        "invents_function": False,
        "invents_argument": False,
        "functions": [1, 1, 1],
        "arguments": [right, 1, 1],
        "reason": None if is_exact else "wrong value",
        "abstention": None,
    }
    return usual | changes
