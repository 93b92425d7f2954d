"""Publishing without accidents (notebook 06): a token that is never shown, one line when the hub says no, nothing private in a file."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET = "HF_TOKEN"
NO_TOKEN = (
    f"no token was found: run `hf auth login`, set the variable {SECRET}, or add a secret called {SECRET} on Colab or Kaggle"
)
REASONS = {  # what the hub's answer means for a push
    401: "the hub does not know this token: make a new one with write access, it may have expired",
    403: "this token may not write there: give it write access, and publish under your own name",
    404: "the hub found no such place for this token: check the name, and that the token may write there",
    409: "you have a repository of that name already: choose another, or add exist_ok=True to update it (who sees it stays as it is)",
}
GENERIC_USERS = {"root", "user", "jovyan", "colab", "kaggle"}  # account names that point to nobody
TEXT_FILES = {".json", ".md", ".jinja", ".txt", ".yaml", ".yml"}
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
HOME = re.compile(r"(?<![\w.:-])(/(?:root|home|Users|content|kaggle|private/var)/|[A-Za-z]:\\+Users\\)")


class NoTokenError(RuntimeError):
    """There is no Hugging Face token on this machine; the message says where to put one."""


def _secret_of_colab() -> str | None:
    from google.colab import userdata

    return userdata.get(SECRET)


def _secret_of_kaggle() -> str | None:
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret(SECRET)


def hub_token() -> str:
    """The token for the hub: ``$HF_TOKEN``, else the secret of that name on Colab or Kaggle, else the one of ``hf auth login``.

    Hand it on, do not print it. Raises :class:`NoTokenError` when there is none; a refused secret counts as none.
    """
    from huggingface_hub import get_token

    stores = {"COLAB_RELEASE_TAG": _secret_of_colab, "KAGGLE_KERNEL_RUN_TYPE": _secret_of_kaggle}
    token = os.environ.get(SECRET, "").strip()
    for variable, read in stores.items():
        if not token and variable in os.environ:
            try:
                token = (read() or "").strip()
            except Exception:  # each platform has its own errors for "no such secret" and "access refused"
                token = ""
    token = token or get_token()
    if not token:
        raise NoTokenError(NO_TOKEN)
    return token


def _reason(error: Exception) -> str | None:
    """What went wrong, in words without paths or secrets; ``None`` for an error that is not the hub's."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(error, NoTokenError):
        return str(error)
    if isinstance(error, HFValidationError):
        return "the name is not valid on the hub: write it as your-name/your-model"
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off here: unset HF_HUB_OFFLINE and restart the kernel"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return REASONS.get(status, f"the hub answered with status {status}: try again later")
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests", "hf_xet"):
        return f"the hub could not be reached ({type(error).__name__}): check the network and try again"
    cause = error.__cause__
    return _reason(cause) if isinstance(cause, Exception) else None


@contextmanager
def explain_failure(folder: Path) -> Iterator[None]:
    """``with explain_failure(folder): model.push_to_hub(...)``: what the hub refuses becomes one printed line, not a traceback.

    The line says why, what to do, and that the model in ``folder`` is safe. Errors that have nothing to do with the hub pass through.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        print(f"not published: {reason}. Your model is safe in {folder.parent.name}/{folder.name}, in your outputs folder.")


def private_details(folder: Path) -> list[str]:
    """``["README.md: a home folder", ...]``: home folders, your user name and tokens in the text files that would be published.

    The user name is not looked for in ``tokenizer.json``, whose vocabulary holds every word. Raises ``FileNotFoundError``
    when ``folder`` is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.name}: save the model first")
    home, user, token = str(Path.home()), getpass.getuser(), os.environ.get(SECRET, "").strip()
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in TEXT_FILES):
        text, name = path.read_text(encoding="utf-8", errors="replace"), path.relative_to(folder).as_posix()
        if HOME.search(text) or (len(home) > 1 and re.search(rf"(?<![\w.:-]){re.escape(home)}(?=[/\\\s\"']|$)", text)):
            found.append(f"{name}: a home folder")
        if user not in GENERIC_USERS and path.name != "tokenizer.json" and re.search(rf"\b{re.escape(user)}\b", text):
            found.append(f"{name}: your user name")
        if TOKEN.search(text) or (token and token in text):
            found.append(f"{name}: a token")
    return found
