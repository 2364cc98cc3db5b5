"""The Modelfile that lets Ollama run an exported GGUF file.

The template writes the same prompts as the prompt format, as far as Ollama allows: of a tool's
parameters it knows only the fields of its own types, sorted by name. Ollama finds calls in an
answer by the text that follows `{{ if .ToolCalls }}` in the template.
Sources: ollama/ollama, template/template.go and tools/tools.go; docs/modelfile.
"""

from importlib.resources import files
from pathlib import Path

from calltune.files import atomic_write
from calltune.formats import FORMATS

_PARTS = ("tool", "arguments")
_NOTES = {
    "gemma": """\
# Calls are a fenced JSON list whose arguments are JSON within a string. Ollama reads such calls
# since ollama/ollama#12413 (autumn of 2025); older releases give them back as text.
""",
    "chatml": "",
}


def template(prompt_format: str) -> str:
    """The Go template of a prompt format's prompts, without BOS, which Ollama adds itself."""
    text = _read(prompt_format)
    for part in _PARTS:
        text = text.replace(f"@{part.upper()}@", _read(part).removesuffix("\n"))
    return text


def write_modelfile(gguf: Path, prompt_format: str, *, n_context: int = 4096) -> Path:
    """Write `Modelfile` beside a GGUF file, for `ollama create NAME -f Modelfile`; its path.

    Args:
        gguf: The GGUF file.
        prompt_format: The name of its prompt format.
        n_context: How many tokens prompt and answer may have together. Ollama truncates longer
            prompts from the front, which would remove the tools.

    Raises:
        OutputError: the file cannot be written.
    """
    stops = "\n".join(f'PARAMETER stop "{stop}"' for stop in FORMATS[prompt_format].stop_tokens)
    text = f'''\
# For: ollama create NAME -f Modelfile
{_NOTES[prompt_format]}FROM ./{gguf.name}
TEMPLATE """{template(prompt_format)}"""
{stops}
PARAMETER temperature 0
# Older releases penalize repetition by default, and JSON repeats.
PARAMETER repeat_penalty 1
PARAMETER num_ctx {n_context}
# Ends an answer that repeats itself without end.
PARAMETER num_predict 512
'''
    path = gguf.with_name("Modelfile")
    with atomic_write(path) as file:
        file.write(text.encode())
    return path


def _read(name: str) -> str:
    return (files("calltune.exporting") / "templates" / f"{name}.gotmpl").read_text("utf-8")
