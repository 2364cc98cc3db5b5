"""How to call what was exported, for its model card."""

from calltune.formats import Format

_CALLTUNE = """\
With calltune, from the shell and from Python:

```bash
calltune call "Weather in Rome?" --tools tools.json {flags}
calltune serve {flags}   # an endpoint like OpenAI's
```

```python
import calltune

caller = calltune.Caller({arguments})
calls = caller.call("Weather in Rome?", [get_weather])
```"""

_SERVER = """
mlx_lm's own server answers with `tool_calls`, too:

```bash
python -m mlx_lm server --model {name}
```"""

_SERVER_TEXT = """
mlx_lm's own server (`python -m mlx_lm server --model {name}`) takes `tools`, but has no parser for
this family's calls: they come in the text of the answer, as a fenced JSON list."""

_PEFT = """\
With transformers and PEFT, prompts written by `chat_template.jinja`:

```python
from pathlib import Path

from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("BASE MODEL")
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Weather in Rome?"}}],
    tools=[...],
    chat_template=Path("chat_template.jinja").read_text(),
    add_generation_prompt=True,
    return_dict=True,
    return_tensors="pt",
)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0]))
```

With calltune: `calltune export --to adapter --adapter-path {name}`."""

_GGUF = """\
With llama.cpp's server, `llama-server --jinja -m FILE.gguf`, or with Ollama by the Modelfile."""


def usage(to: str, name: str, family: Format) -> str:
    """Markdown: what to type for what was exported as `to`, by the name of its folder or repo."""
    if to == "peft":
        return _PEFT.format(name=name)
    if to == "gguf":
        return _GGUF
    option, argument = ("--model", "") if to == "mlx" else ("--adapter-path", "adapter=")
    ours = _CALLTUNE.format(flags=f"{option} {name}", arguments=f'{argument}"{name}"')
    if to == "adapter":
        return ours
    theirs = _SERVER if family.tool_parser else _SERVER_TEXT
    return f"{ours}\n{theirs.format(name=name)}"
