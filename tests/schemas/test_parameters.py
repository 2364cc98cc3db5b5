from calltune.schemas.parameters import allows, read_parameters


def test_a_parameter_named_type_is_a_parameter() -> None:
    reading = read_parameters({"type": {"type": "str", "description": "the kind"}})
    assert reading.schema["properties"] == {"type": {"type": "string", "description": "the kind"}}
    assert reading.schema["required"] == ["type"]


def test_a_json_schema_with_a_parameter_named_type_is_a_schema() -> None:
    written = {"type": "dict", "properties": {"type": {"type": "float"}}, "required": ["type"]}
    assert read_parameters(written).schema == {
        "type": "object",
        "properties": {"type": {"type": "number"}},
        "required": ["type"],
    }


def test_a_parameter_named_properties_is_a_parameter() -> None:
    reading = read_parameters({"properties": {"type": "dict", "description": "of the shape"}})
    assert list(reading.schema["properties"]) == ["properties"]


def test_a_default_or_an_optional_type_makes_a_flat_parameter_optional() -> None:
    written = {
        "a": {"type": "str"},
        "b": {"type": "str, optional"},
        "c": {"type": "int", "default": 3},
    }
    assert read_parameters(written).schema["required"] == ["a"]


def test_nested_types_are_normalised() -> None:
    written = {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "items": {
                    "type": "dict",
                    "properties": {"x": {"type": "float"}},
                    "required": ["x"],
                },
            }
        },
    }
    items = read_parameters(written).schema["properties"]["rows"]["items"]
    assert items == {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


def test_what_is_not_understood_is_noted_once() -> None:
    reading = read_parameters({"a": {"type": "Callable"}, "b": {"type": "Callable"}, "c": 3})
    assert reading.schema["properties"] == {"a": {}, "b": {}, "c": {}}
    assert [(each.kind, each.n_faults) for each in reading.remarks] == [
        ("type not understood: Callable", 2),
        ("schema not understood: 3", 1),
    ]


def test_other_arguments_are_allowed_only_where_the_schema_says_so() -> None:
    assert not allows(read_parameters({"a": {"type": "int"}}).schema, "b")
    assert allows(read_parameters({"type": "object", "additionalProperties": {}}).schema, "b")
    assert not allows(
        read_parameters({"type": "object", "additionalProperties": False}).schema, "b"
    )
