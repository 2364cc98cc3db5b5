"""Clients and agent frameworks in whole loops: question, call, function, result, answer.

Each runs in a process of its own, so that a connection that leaves the machine is seen, and what a
framework imports stays out of the other tests.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import tuned
from support.clients import in_node, run_client
from support.node import NEEDS_NODE

pytestmark = [pytest.mark.real, pytest.mark.slow]

# One for each tool; what the model makes of other questions is no matter of the wire.
QUESTIONS = [tuned.asked()[0], tuned.asked()[-1]]

# Names are looked up and connections opened on this machine only.
WATCH = """
import json, sys

def watch(event, arguments):
    if event == "socket.connect" and arguments[1][0] != "127.0.0.1":
        raise SystemExit(f"OUTBOUND {arguments[1:]}")
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        raise SystemExit(f"OUTBOUND {arguments}")

sys.addaudithook(watch)
URL, CODE, *QUESTIONS = sys.argv[1:]
RAN = []

def weather(city: str) -> str:
    '''Get the weather in a city.'''
    RAN.append(["weather", {"city": city}])
    return f"{len(city) + 15} degrees and sunny in {city}"

def add(a: int, b: int) -> int:
    '''Add two numbers.'''
    RAN.append(["add", {"a": a, "b": b}])
    return a + b

"""

ASK_ALL = f"""{WATCH}
TOOLS = {json.dumps(tuned.TOOLS)!r}
for QUESTION in QUESTIONS:
    RAN.clear()
    exec(CODE)
    print(json.dumps([RAN, answer]))
"""

OPENAI = """
from openai import OpenAI

client = OpenAI(base_url=URL, api_key="none")
messages = [{"role": "user", "content": QUESTION}]
tools = json.loads(TOOLS)
while len(messages) < 10:
    with client.chat.completions.stream(
        model="tuned", messages=messages, tools=tools, temperature=0
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    messages.append(message.to_dict())
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        found = globals()[call.function.name](**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(found)})
answer = message.content
"""

OPENAI_AGENTS = """
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner
from agents import function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=URL, api_key="none")
agent = Agent(
    name="tester",
    model=OpenAIResponsesModel(model="tuned", openai_client=client),
    model_settings=ModelSettings(temperature=0),
    tools=[function_tool(weather), function_tool(add)],
)
answer = Runner.run_sync(agent, QUESTION, max_turns=5).final_output
"""

PYDANTIC_AI = """
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=URL, api_key="none")
agent = Agent(
    OpenAIChatModel("tuned", provider=provider),
    tools=[weather, add],
    model_settings={"temperature": 0},
)
answer = agent.run_sync(QUESTION).output
"""

LANGCHAIN = """
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="tuned", base_url=URL, api_key="none", temperature=0)
agent = create_agent(model, tools=[weather, add])
asked = {"messages": [{"role": "user", "content": QUESTION}]}
answer = agent.invoke(asked, {"recursion_limit": 10})["messages"][-1].content
"""

CLIENTS = {
    "openai": OPENAI,
    "openai-agents": OPENAI_AGENTS,
    "pydantic-ai": PYDANTIC_AI,
    "langchain": LANGCHAIN,
}


@pytest.fixture(scope="module")
def url(tuned_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the tuned model."""
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "calltune", "serve", "--port", "0", "--max-tokens", "60"]
    with log.open("w") as errors:
        server = subprocess.Popen(
            [*command, "--adapter-path", f"tuned={tuned_adapter}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def _address(server: "subprocess.Popen[str]", log: Path) -> str:
    assert server.stdout is not None
    too_late = threading.Timer(120, server.kill)
    too_late.start()
    try:
        for line in server.stdout:
            if line.startswith("Serving on "):
                return line.removeprefix("Serving on ").strip()
    finally:
        too_late.cancel()
    raise AssertionError(log.read_text())


class Found(NamedTuple):
    """The functions that were run for a question, and the answer in the end."""

    ran: list[Any]
    answer: str


def run(code: str, url: str, questions: Sequence[str]) -> list[Found]:
    """What the code ran and was answered to each question, from a process of its own."""
    printed = run_client([sys.executable, "-c", ASK_ALL, url, code, *questions])
    return [Found(*json.loads(line)) for line in printed.splitlines()[-len(questions) :]]


def check(answers: Sequence[Found]) -> None:
    for found, (_, call, result) in zip(answers, QUESTIONS, strict=True):
        assert found.ran == [[call.name, call.arguments]]
        (number,) = re.findall(r"\d+", result)
        assert number in found.answer


@pytest.mark.parametrize("client", CLIENTS)
def test_the_function_is_run_and_its_result_becomes_an_answer(url: str, client: str) -> None:
    check(run(CLIENTS[client], url, [each.question for each in QUESTIONS]))


@NEEDS_NODE
@pytest.mark.parametrize("client", ["openai", "ai_sdk"])
def test_so_it_is_in_node(url: str, node_packages: Path, client: str) -> None:
    command = in_node(f"loop_{client}.mjs", node_packages)
    printed = run_client([*command, url, *(each.question for each in QUESTIONS)])
    check([Found(*json.loads(line)) for line in printed.splitlines()])


def test_a_connection_that_leaves_the_machine_is_seen() -> None:
    code = "import urllib.request; urllib.request.urlopen('http://192.0.2.1:9/', timeout=1)"
    with pytest.raises(AssertionError, match="OUTBOUND"):
        run(code, "", ["?"])
