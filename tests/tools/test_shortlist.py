from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.tools.shortlist import Shortlist, fit_tools, left_out_text, rank_tools, words
from calltune.types import Message, Tool, ToolCall


def tool(name: str, description: str = "", *arguments: str) -> Tool:
    properties = {each: {"type": "string"} for each in arguments}
    return Tool(name, description, {"type": "object", "properties": properties}, {"name": name})


TOOLS = [
    tool("create_issue", "Open a new issue in a repository.", "title", "body"),
    tool("list_commits", "List the commits of a branch.", "sha"),
    tool("mergePullRequest", "Merge a pull request.", "method"),
    tool("get_weather", "Weather of a city.", "city"),
    tool("search_users", "Find people by name.", "query"),
]


def fitted(room: int, *messages: Message, cost: int = 10) -> Shortlist:
    def prompt_tokens(tools: Sequence[Tool]) -> int:
        return 100 + cost * len(tools)

    return fit_tools(TOOLS, messages, room, prompt_tokens=prompt_tokens, tool_tokens=lambda _: 10)


def user(text: str) -> Message:
    return Message("user", text)


@pytest.mark.parametrize(
    ("questions", "best"),
    [
        (["Please open an issue about the login page"], "create_issue"),
        (["Which commit broke main?"], "list_commits"),
        (["Merge pull requests 5 and 6"], "mergePullRequest"),
        (["What is the weather in Rome?"], "get_weather"),
        (["What is the weather in Rome?", "And in Oslo?"], "get_weather"),
        (["What is the weather in Rome?", "Who are the users called Ada?"], "search_users"),
        (["MÉRGE it"], "mergePullRequest"),
    ],
)
def test_the_tool_that_suits_the_question_comes_first(questions: list[str], best: str) -> None:
    assert TOOLS[rank_tools(TOOLS, questions)[0]].name == best


def test_without_a_word_in_common_the_order_stays() -> None:
    for questions in ([], [""], ["?"], ["天気"]):
        assert rank_tools(TOOLS, questions) == [0, 1, 2, 3, 4]
    assert rank_tools([], ["a"]) == []


def test_words_are_those_of_names_and_of_text() -> None:
    expected = ["get", "http", "status", "code", "2", "city"]
    assert words("getHTTPStatus_code2 of the Cities") == expected
    assert words("queries") == words("query")
    assert words("天気 погода") == ["天気", "погода"]


def test_all_tools_stay_where_they_fit() -> None:
    assert fitted(150, user("weather")) == Shortlist(tuple(TOOLS))


def test_what_suits_stays_in_the_order_of_the_list() -> None:
    found = fitted(125, user("The weather, and the commits"))
    assert [each.name for each in found.tools] == ["list_commits", "get_weather"]
    assert found.left_out == ("create_issue", "mergePullRequest", "search_users")
    assert left_out_text(found).startswith("3 of 5 tools do not fit")


def test_tools_that_were_called_stay() -> None:
    earlier = Message("assistant", "", (ToolCall("search_users", {"query": "Ada"}),))
    found = fitted(115, user("Find Ada"), earlier, user("The weather?"))
    assert [each.name for each in found.tools] == ["search_users"]


def test_costs_that_were_underestimated_are_made_up_for() -> None:
    found = fitted(150, user("weather"), cost=20)
    assert [each.name for each in found.tools] == ["create_issue", "get_weather"]


def test_where_nothing_fits_all_is_left_out() -> None:
    found = fitted(99, user("weather"))
    assert found.tools == () and len(found.left_out) == 5


@given(
    st.lists(st.integers(1, 50), min_size=5, max_size=5),
    st.integers(0, 300),
    st.sampled_from(["", "weather", "merge"]),
)
def test_what_is_kept_fits_and_nothing_is_lost(costs: list[int], room: int, text: str) -> None:
    by_name = {each.name: cost for each, cost in zip(TOOLS, costs, strict=True)}

    def prompt_tokens(tools: Sequence[Tool]) -> int:
        return 20 + sum(by_name[each.name] for each in tools)

    found = fit_tools(
        TOOLS,
        [user(text)],
        room,
        prompt_tokens=prompt_tokens,
        tool_tokens=lambda each: by_name[each.name] // 2,
    )
    kept = [each.name for each in found.tools]
    assert not kept or prompt_tokens(found.tools) <= room
    assert [each.name for each in TOOLS if each.name in kept] == kept
    assert sorted([*kept, *found.left_out]) == sorted(by_name)
