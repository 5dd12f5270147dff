"""Models of the Hugging Face hub: where their files are here, downloaded if need be.

Owns when the hub is asked and how long it may take to answer; it does not know what the files mean.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo

from scout_core.errors import UnknownModelError

HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES: Final = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
ANSWER_TIMEOUT_S: Final = 5.0
"""How long the hub may take to say whether it has a model, name resolution included.

A hub that is there needs well under a second. One that is not costs what the resolver and the
kernel allow otherwise: its client sets no timeout on this question, a resolver without a server
tries for 5 s several times over, a connection that nobody answers is given up after two minutes.
"""


def hub_folder(reference: str) -> Path:
    """The files of ``owner/name``: as the hub has them now, or else as they are stored here.

    Raises:
        UnknownModelError: they are not stored, and the hub did not answer in time or refused.
    """
    failure = _ask(reference)
    try:
        return Path(
            snapshot_download(
                reference, allow_patterns=HUB_FILES, local_files_only=failure is not None
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UnknownModelError(
            f"The hub model {reference} is neither stored here nor can it be downloaded "
            f"({failure or error}); check the name and the connection, or give a local folder.",
            model=reference,
        ) from (failure or error)


def _ask(reference: str) -> BaseException | None:
    """Why the hub cannot be had for this model; None: it has it."""
    answer: Future[ModelInfo] = Future()

    def ask() -> None:
        try:
            answer.set_result(HfApi().model_info(reference, timeout=ANSWER_TIMEOUT_S))
        except Exception as error:  # noqa: BLE001 - the errors of its HTTP client have no public name
            answer.set_exception(error)

    # A thread that nothing waits for: a name cannot be resolved with a timeout.
    threading.Thread(target=ask, name="hub-question", daemon=True).start()
    try:
        return answer.exception(timeout=ANSWER_TIMEOUT_S)
    except TimeoutError:
        return TimeoutError(f"the hub did not answer within {ANSWER_TIMEOUT_S:g} s")
