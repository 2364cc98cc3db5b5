"""A GGUF file for Ollama: the Modelfile that goes beside it.

The template writes what the family's `render` writes, as far as Ollama lets it: of a tool's
parameters it has those fields alone that its own types know, sorted by name. From the text after
`{{ if .ToolCalls }}` Ollama takes the sign by which it finds calls in an answer.
Sources: ollama/ollama, template/template.go and tools/tools.go; docs/modelfile.
"""

from importlib.resources import files
from pathlib import Path

from calltune.files import replacing
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
    """The Go template of a format's prompts, without BOS, which Ollama puts in front itself."""
    text = _read(prompt_format)
    for part in _PARTS:
        text = text.replace(f"@{part.upper()}@", _read(part).removesuffix("\n"))
    return text


def write_modelfile(gguf: Path, prompt_format: str, *, n_context: int = 4096) -> Path:
    """Write `Modelfile` beside a GGUF file, for `ollama create NAME -f Modelfile`; its path.

    `n_context` is how many tokens prompt and answer may have together: Ollama cuts what is longer
    from the front, which takes the tools away.

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
# Older releases hold repetition against a model, and JSON repeats.
PARAMETER repeat_penalty 1
PARAMETER num_ctx {n_context}
# An answer that goes round in circles ends here.
PARAMETER num_predict 512
'''
    path = gguf.with_name("Modelfile")
    with replacing(path) as file:
        file.write(text.encode())
    return path


def _read(name: str) -> str:
    return (files("calltune.exporting") / "templates" / f"{name}.gotmpl").read_text("utf-8")
