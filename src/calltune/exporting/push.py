"""Upload of an exported folder to the model hub, through huggingface_hub."""

import os
import re
from pathlib import Path

from calltune.errors import AccessDenied, CalltuneError, FetchError, OptionError


def check_name(repo: str) -> None:
    """Check the name of a repository on the hub.

    Raises:
        OptionError: it is not NAME or OWNER/NAME.
    """
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", repo):
        raise OptionError(f"--push {repo} is no repository; give OWNER/NAME, such as acme/caller")


def check_token() -> None:
    """Check that there is a token, before any work is done for the hub.

    Raises:
        AccessDenied: there is none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise AccessDenied("No token for the hub; run `hf auth login`, and run again")


def push(folder: Path, repo: str, is_private: bool) -> str:
    """Upload a folder to a repository, which is created if it does not exist; its address.

    Raises:
        AccessDenied: the hub refuses the token.
        FetchError: the hub cannot be reached, or the upload broke off.
        OptionError: the repository is public, and a private one was asked for.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import HfApi, errors

    api = HfApi()
    # The HTTP library under the hub's client differs between versions: take the one it uses.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        address = api.create_repo(repo, private=is_private or None, exist_ok=True)
        # Nothing is uploaded to a repository that others can read against the user's will.
        if is_private and not api.model_info(address.repo_id).private:
            raise OptionError(
                f"{repo} exists already and is public; give another name, or make it private"
            )
        api.upload_folder(
            folder_path=folder, repo_id=address.repo_id, commit_message="Upload with calltune"
        )
    except (OSError, ValueError, RuntimeError, http_error) as error:
        raise _explained(folder, repo, error) from error
    return str(address)


def _explained(folder: Path, repo: str, error: BaseException) -> CalltuneError:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    codes = {getattr(getattr(e, "response", None), "status_code", None) for e in chain}
    again = f"then `hf upload {repo} {folder}`, for {folder} is whole"
    if codes & {401, 403}:
        return AccessDenied(
            f"The hub refuses to write {repo} with this token; run `hf auth login` with one that "
            f"may write there, {again}"
        )
    reason = " ".join(str(chain[-1]).split())[:160] or type(chain[-1]).__name__
    return FetchError(f"{repo} could not be uploaded ({reason}); check the connection, {again}")
