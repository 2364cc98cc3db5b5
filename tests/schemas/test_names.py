import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.schemas.names import VALID_NAME, sanitize_names


@given(st.lists(st.text(max_size=80) | st.sampled_from(["a", "a.", "a_2", "b" * 70, "b" * 71])))
def test_every_name_is_carried_and_no_two_are_alike(originals: list[str]) -> None:
    names = sanitize_names(originals)
    assert len(names) == len(originals) == len(set(names))
    assert all(VALID_NAME.fullmatch(name) for name in names)
    assert sanitize_names(originals) == names


@pytest.mark.parametrize(
    ("originals", "names"),
    [
        (["get.user", "get_user"], ["get_user_2", "get_user"]),
        (["look", "look", "look_2"], ["look", "look_3", "look_2"]),
        (["GET /pets/{id}"], ["GET_pets_id"]),
        (["größe", "天气", ""], ["gro_e", "tool", "tool_2"]),
        (["x" * 65, "x" * 64, "x" * 66], ["x" * 62 + "_2", "x" * 64, "x" * 62 + "_3"]),
    ],
)
def test_a_name_that_is_carried_stays_and_others_make_way(
    originals: list[str], names: list[str]
) -> None:
    assert sanitize_names(originals) == names
