"""Publishing without accidents (notebook 06): a token that is never shown, and one line when the hub says no.

And the embedded vector store of notebooks 06 and 07: what to say when it is in use elsewhere or damaged.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vdr_helpers.profiles import Profile, assets_folder

SECRET = "HF_TOKEN"
# An idle client's pings end in a complaint.
QUIET = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}
REASONS = {  # what the hub's answer means for a push
    401: "the hub does not know this token: make a new one with write access, it may have expired",
    403: "this token may not write there: give it write access, and publish under your own name",
    404: "the hub found no such place for this token: check the name, and that the token may write there",
    409: "you have a repository of that name already: choose another, or add exist_ok=True to update it (who sees it stays as it is)",
}


class NoTokenError(RuntimeError):
    """There is no Hugging Face token on this machine; the message says where to put one."""


def hub_token() -> str:
    """The token for the hub: what ``huggingface_hub.get_token`` finds (``$HF_TOKEN``, a secret on Colab, ``hf auth login``), else Kaggle's.

    Hand it on, do not print it. Raises :class:`NoTokenError` when there is none; a refused secret counts as none.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token and "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        with suppress(Exception):  # Kaggle's client has errors of its own for "no such secret" and "access refused"
            from kaggle_secrets import UserSecretsClient

            token = (UserSecretsClient().get_secret(SECRET) or "").strip()
    if not token:
        raise NoTokenError(
            f"no token was found: run `hf auth login`, set the variable {SECRET}, or add a secret called {SECRET} on Colab or Kaggle"
        )
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
    """What the hub refuses becomes one printed line: why, what to do, and that the model in ``folder`` is safe. Other errors pass through."""
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        print(f"not published: {reason}. Your model is safe in {folder.parent.name}/{folder.name}, in your outputs folder.")


def merge_adapters(model, profile: Profile):
    """The model with LoRA's matrices added to the weights they belong to; a model without adapters comes back as it is.

    What is saved then needs neither ``peft`` nor the base, whose place on this machine an adapter would name. For a moment both models are
    in memory.
    """
    if not getattr(model[0].auto_model, "peft_config", None):
        return model
    from peft.tuners.lora import LoraLayer
    from sentence_transformers import SentenceTransformer

    merged = SentenceTransformer(
        profile.base_model,
        revision=profile.model_revision,
        truncate_dim=model.truncate_dim,
        model_kwargs=profile.model_kwargs,
        processor_kwargs=profile.processor_kwargs,
    )
    for name, layer in model[0].auto_model.named_modules():
        if isinstance(layer, LoraLayer):
            weight = merged[0].auto_model.get_submodule(name).weight
            weight.data = (weight.data.float() + layer.get_delta_weight("default").to(weight.device).float()).to(weight.dtype)
    return merged


TEMPLATE = str(assets_folder() / "model_card.md")  # the text around the facts, for huggingface_hub's ModelCard.from_template


def open_store(path: Path):
    """``MilvusClient(str(path))`` (notebook 06) for a client that may sit idle; ``path`` ends with ``.db``.

    A store whose files cannot be read is set aside as ``<name>-damaged.db``, with a printed line, and begun anew. Raises
    ``RuntimeError`` where another process, such as another notebook's kernel, has it open: an embedded store serves one at a time.
    """
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    path.parent.mkdir(parents=True, exist_ok=True)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # both packages log a traceback before they raise
    try:
        client = MilvusClient(str(path), grpc_options=QUIET)
        for name in client.list_collections():
            client.describe_collection(name)  # reads the collection's files
    except ConnectionConfigException as error:
        raise RuntimeError(
            f"the store {path.name} is open in another process: shut that notebook's kernel down, then run this cell again "
            "(if none has it open: can its folder be written?)"
        ) from error
    except MilvusException as error:
        server_manager_instance.release_server(str(path))
        aside = path.with_name(f"{path.stem}-damaged.db")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f"the store {path.name} cannot be read ({type(error).__name__}): it lies in {aside.name} now, a new one is begun")
        client = MilvusClient(str(path), grpc_options=QUIET)
    finally:
        logging.disable(disabled)
    return client
