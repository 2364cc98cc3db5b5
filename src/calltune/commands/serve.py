"""serve: an OpenAI-compatible endpoint for a model and its adapters."""

import os
from pathlib import Path

from calltune.errors import OptionError
from calltune.serving.options import ServeOptions

__all__ = ["ServeOptions", "run"]

API_KEY_VARIABLE = "CALLTUNE_API_KEY"


def run(options: ServeOptions) -> Path:
    """Answer requests until SIGTERM or Ctrl-C; the folder of the first adapter.

    Raises:
        AdapterMismatch: the adapters cannot stand beside each other, or are of another model.
        ModelNotFound: there is no such model or adapter.
        OptionError: the address can be reached from other machines, or by any web page, and there
            is no key; or it cannot be listened on; or the options do not fit the model.
    """
    from calltune.models.backend import choose, print_backend
    from calltune.serving.access import LOOPBACK

    api_key = os.environ.get(API_KEY_VARIABLE) or None
    if api_key is None and options.host not in LOOPBACK:
        raise OptionError(
            f"--host {options.host} can be reached from other machines; set {API_KEY_VARIABLE} to "
            "a secret that requests must send, or listen on 127.0.0.1"
        )
    if api_key is None and "*" in options.allowed_origins:
        raise OptionError(
            f"--allowed_origins * lets every web page that you open use the model; set "
            f"{API_KEY_VARIABLE} to a secret that requests must send, or name the pages' origins"
        )
    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.serving.build import build_service
    from calltune.serving.server import run_server

    server = build_service(options, backend, api_key)
    capacity = server.capacity
    print(
        f"Capacity: {capacity.batch_size} answers at once, {capacity.context_tokens} tokens each "
        f"with the prompt, {capacity.n_bytes / 1e9:.1f} GB at most"
    )
    print(f"Models: {', '.join(server.service.models)}", flush=True)
    run_server(server.app, options.host, options.port)
    return next(iter(options.adapters().values()), Path())
