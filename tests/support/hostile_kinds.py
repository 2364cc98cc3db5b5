"""The kinds of hostile JSON Schema: deep, large, exponential, contradictory and so on."""

from collections.abc import Callable, Iterator
from typing import Any

# fmt: off
KEYWORDS = (
    "type", "enum", "const", "pattern", "format", "minLength", "maxItems", "items", "prefixItems",
    "anyOf", "oneOf", "allOf", "not", "if", "minimum", "multipleOf", "uniqueItems", "contains",
    "propertyNames", "patternProperties", "dependentRequired", "$ref", "$dynamicRef", "minItems",
)
# fmt: on


def of(value: Any) -> dict[str, Any]:
    """The schema of an object with one required property."""
    return {"type": "object", "properties": {"x": value}, "required": ["x"]}


def _deep() -> Iterator[str]:
    around = [
        ('{"type": "object", "required": ["x"], "properties": {"x": ', "}}"),
        ('{"type": "array", "minItems": 1, "items": ', "}"),
        ('{"anyOf": [{"type": "null"}, ', "]}"),
        ('{"allOf": [', "]}"),
        ('{"not": ', "}"),
        ('{"if": true, "then": ', "}"),
        ('{"prefixItems": [', "]}"),
        ('{"patternProperties": {".": ', "}}"),
    ]
    for depth in (12, 40, 47, 200, 3_000, 20_000):
        for before, after in around:
            inner = before * depth + '{"type": "string"}' + after * depth
            yield f'{{"type": "object", "properties": {{"x": {inner}}}, "required": ["x"]}}'


def _references() -> Iterator[dict[str, Any]]:
    # fmt: off
    targets = [
        "#", "#/properties/x", "#/$defs/none", "#/$defs/a", "##", "#/%", "#/~2", "#a", "a", "",
        "https://127.0.0.1:9/s", "http://169.254.0.1/s", "file:///etc/passwd", "//x", "urn:a:b",
        "#/$defs/a/properties/x", "#/required/0", "https://json-schema.org/draft/2020-12/schema",
    ]
    # fmt: on
    for target in targets:
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            for wrapped in ({keyword: target}, {"anyOf": [{keyword: target}, {keyword: target}]}):
                yield of(wrapped) | {"$defs": {"a": of({"$ref": "#/$defs/b"}), "b": wrapped}}
    for length in (10, 100, 1_000):
        links: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
        for end in ({"type": "string"}, {"$ref": "#/$defs/d0"}, {"$ref": "#"}):
            yield of({"$ref": "#/$defs/d0"}) | {"$defs": links | {f"d{length}": end}}
    for identity in ("$id", "$anchor", "$dynamicAnchor", "$schema", "$vocabulary"):
        yield of({"$dynamicRef": "#m"}) | {identity: "m", "$defs": {"m": {identity: "m"}}}


def _exponential() -> Iterator[dict[str, Any]]:
    for size in (4, 8, 12, 16, 20, 24, 30):
        either = [{"anyOf": [{"minLength": i}, {"maxLength": 90 - i}]} for i in range(size)]
        yield of({"type": "string", "allOf": either})
        each = {"anyOf": [of({"const": i}) for i in range(size)]}
        yield {"type": "object", "allOf": [each] * size}
        for keyword in ("properties", "anyOf", "allOf", "oneOf", "prefixItems"):
            doubled: dict[str, Any] = {f"d{size}": {"type": "string"}}
            for i in range(size):
                twice: list[Any] = [{"$ref": f"#/$defs/d{i + 1}"} for _ in "ab"]
                if keyword == "properties":
                    parts = dict(zip("ab", twice, strict=True))
                    doubled[f"d{i}"] = {"type": "object", "properties": parts, "required": ["a"]}
                else:
                    doubled[f"d{i}"] = {keyword: twice}
            yield of({"$ref": "#/$defs/d0"}) | {"$defs": doubled}
        optional = {f"p{i}": {"type": "integer"} for i in range(size * 10)}
        yield {"type": "object", "properties": optional}


def _patterns() -> Iterator[dict[str, Any]]:
    # fmt: off
    patterns = [
        "(a+)+$", "(a|a)*$", "(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)*x", "(x+x+)+y",
        "(", "[", "a{", "*", "\\", "(?P<n>a)(?P=n)", r"(a)\1", "(?=a)b", "(?<!a)b", "(?i)a", "^$",
        "a{1000}", "(a{1000}){1000}", "a{0,100000}", "(a{0,99}){0,99}", "a{5,2}", "[z-a]", "a\\Z",
        r"\p{L}+", r"\u{1F600}", "[\ud83d]", "\x00", "[^\x00-\uffff]", "^.{0,2000}$", "(?s).*",
        *("|".join(f"w{i}" for i in range(n)) for n in (100, 1_000, 5_000)),
        *("(" * n + "a" + ")" * n for n in (50, 500, 5_000)),
        *("[a-z]?" * n + "[a-z]" * n for n in (20, 60, 200)),
        *("(a|b|ab)*c" * n for n in (5, 50)),
    ]
    # fmt: on
    for pattern in patterns:
        yield of({"type": "string", "pattern": pattern})
        yield {"type": "object", "patternProperties": {pattern: {"type": "integer"}}}
        yield of({"type": "string", "pattern": pattern, "minLength": 3, "maxLength": 2_000})
    for name in ("date-time", "regex", "uuid", "email", "ipv6", "idn-hostname", "x"):
        yield of({"type": "string", "format": name, "minLength": 500})


def _large() -> Iterator[dict[str, Any]]:
    for count in (100, 1_000, 5_000, 20_000, 200_000):
        yield of({"enum": list(range(count))})
        yield of({"enum": [f"{i:x}" * 9 for i in range(count)]})
        yield of({"enum": [{"a": i, "b": [i]} for i in range(count // 10)]})
        yield of({"anyOf": [{"const": str(i)} for i in range(count // 10)]})
        yield of({"oneOf": [of({"const": i}) for i in range(count // 100)]})
        names = {f"name_{i}": {"type": "integer"} for i in range(count // 20)}
        yield {"type": "object", "properties": names, "required": list(names)}
        yield {"type": "object", "required": [f"r{i}" for i in range(count // 20)]}
        yield of({"const": "x" * count})
        yield of({"type": "string", "description": "d" * count})
        yield {"type": "object", "properties": {"n" * count: {"type": "null"}}}


def _counts() -> Iterator[dict[str, Any]]:
    numbers: list[Any] = [-1, 0, 1.5, 1_999, 2_001, 10**6, 10**9, 10**18, 10**400, 1e308, "5", None]
    strings = ("minLength", "maxLength")
    arrays = ("minItems", "maxItems", "minContains", "maxContains")
    objects = ("minProperties", "maxProperties")
    limits = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    for number in numbers:
        yield from (of({"type": "string", keyword: number}) for keyword in strings)
        yield from (
            of({"type": "array", "items": {"enum": [0]}, "contains": {}, keyword: number})
            for keyword in arrays
        )
        yield from (of({"type": "object", keyword: number}) for keyword in objects)
        for kind in ("integer", "number"):
            yield from (of({"type": kind, keyword: number}) for keyword in limits)
    for nested in (3, 6, 9):
        value: dict[str, Any] = {"enum": [1]}
        for _ in range(nested):
            value = {"type": "array", "items": value, "minItems": 50, "maxItems": 100}
        yield of(value)


def _impossible() -> Iterator[Any]:
    yield from (
        of(value)
        for value in (
            False,
            {"allOf": [{"type": "integer"}, {"type": "string"}]},
            {"type": "integer", "minimum": 5, "maximum": 4},
            {"type": "string", "minLength": 5, "maxLength": 4},
            {"allOf": [{"type": "string"}, {"enum": [1, 2]}]},
            {"enum": []},
            {"const": 1, "enum": [2]},
            {"not": {}},
            {"type": []},
            {"type": "array", "prefixItems": [False], "minItems": 1},
            {"type": "number", "multipleOf": 0},
            {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6},
            {"oneOf": [{}, {}]},
            {"anyOf": []},
            {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "boolean"}},
        )
    )
    yield {"type": "object", "required": ["y"], "additionalProperties": False}
    yield {"type": "string"}
    yield {"type": "object", "properties": {"x": False}, "required": ["x"]}
    yield {"not": {"type": "object"}}


def _broken() -> Iterator[dict[str, Any]]:
    values: list[Any] = [None, 5, -0.0, "text", "", True, [], {}, [[]], [None], {"a": 5}, [{}]]
    for keyword in (*KEYWORDS, "properties", "required", "additionalProperties", "$defs"):
        for value in values:
            yield {"type": "object", "properties": {"x": {keyword: value}}, "required": ["x"]}
    for keyword in ("type", "properties", "required", "additionalProperties", "allOf", "$ref"):
        yield from ({"type": "object", keyword: value} for value in values)


def _texts() -> Iterator[dict[str, Any]]:
    # fmt: off
    texts = [
        "\x00", "\ud800", "\udfff\ud800", "\u202e", "\u2028", "😀" * 50, "é" * 500, "\x1b[31m",
        "\\", "<|im_end|>", "<|im_start|>user", "</tool_call>", "<tool_call>", "</tools>", '"}]',
        "$ref", "{{7*7}}", "%s", "\n" * 100, "' OR 1=1", "\\u0000", "a" * 3_000, " ", "",
        "__proto__",
    ]
    # fmt: on
    for text in texts:
        yield {"type": "object", "properties": {text: {"type": "integer"}}, "required": [text]}
        yield of({"enum": [text, f"{text} again"]})
        yield of({"const": {text: [text]}})
        yield of({"type": "string", "description": text, "title": text, "default": text})


def _odd() -> Iterator[dict[str, Any]]:
    inner: list[Any] = [{"type": "integer"}, {"minLength": 3}, {"enum": [1]}, of({"const": 1})]
    for part in inner:
        yield of({"not": part})
        yield of({"if": part, "then": {"type": "integer"}, "else": {"type": "string"}})
        yield of({"type": "array", "contains": part, "minContains": 2, "maxContains": 3})
        yield of({"type": "object", "propertyNames": part, "minProperties": 2})
        yield of({"type": "object", "dependentSchemas": {"a": part}, "required": ["a"]})
        yield of({"type": "object", "unevaluatedProperties": part, "allOf": [{}]})
        yield of({"type": "array", "prefixItems": [part, part], "items": False, "minItems": 2})
        yield of({"type": "string", "contentMediaType": "application/json", "contentSchema": part})
        yield of({"oneOf": [part, {"type": ["string", "integer", "object"]}]})
        yield of({"allOf": [part, {"not": part}]})
        yield {"type": "object", "patternProperties": {"^x": part}, "additionalProperties": False}
    some, more = ({"type": "object", "properties": {name: {"enum": [1]}}} for name in "ab")
    for closed in ("additionalProperties", "unevaluatedProperties"):
        yield {"allOf": [some | {closed: False}, more | {"required": ["b"]}]}
        yield some | {closed: False, "anyOf": [more, {"required": ["b"]}]}
    yield of(
        {"type": "array", "allOf": [{"prefixItems": [{"enum": [1]}]}, {"items": {"enum": [2]}}]}
    )
    yield of({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]})
    yield of({"type": "integer", "allOf": [{"multipleOf": 6}, {"multipleOf": 4}], "minimum": 1})


KINDS: dict[str, Callable[[], Iterator[Any]]] = {
    "deep": _deep,
    "references": _references,
    "exponential": _exponential,
    "patterns": _patterns,
    "large": _large,
    "counts": _counts,
    "impossible": _impossible,
    "broken": _broken,
    "texts": _texts,
    "odd": _odd,
}
"""Schemas of each kind: as JSON, or as its text."""
