"""What can be wrong with a repository on a hub, in words: its name, the login, the way there."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = (402, 413, 507)
CHANGED_MEANWHILE = (409, 412)
TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def check_repo_id(repo_id: str) -> None:
    """Check the name of a repository, without asking any hub.

    Args:
        repo_id: The name.

    Raises:
        UserError: If it is not `user/name`, or no hub would take it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        is_good = repo_id.count("/") == 1
    except HFValidationError:
        is_good = False
    if not is_good:
        raise UserError(
            f"{repo_id!r} is no name of a repository. Write user/name: letters, digits, '-', '_' and "
            "'.', at most 96 of them, without '..' and '--', and without '.git' at the end."
        )


def check_revision(revision: str | None) -> None:
    """Check the name of a branch.

    Args:
        revision: The name; `None` for the main branch.

    Raises:
        UserError: If it can be none.
    """
    if revision is None:
        return
    parts = revision.split("/")
    wrong = any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    if wrong or ".." in revision or not BRANCH.fullmatch(revision):
        raise UserError(
            f"--revision {revision!r} is no name of a branch. Write letters, digits, '-', '_', '.' "
            "and '/', such as v1.0 or tries/second."
        )


def check_login() -> None:
    """Check, without asking any hub, that an upload could begin.

    Raises:
        UserError: If nobody is logged in, or the client of the hub was told to stay offline.
    """
    from huggingface_hub import get_token, is_offline_mode

    if is_offline_mode():
        raise UserError(
            "Nothing can be uploaded while HF_HUB_OFFLINE is set. Unset it and try again."
        )
    if not get_token():
        raise UserError(
            f"Nobody is logged in to the hub. Make a token that may write in your account's settings, "
            f"then {LOGIN}."
        )


def explain(error: BaseException, repo_id: str, token: str | None = None) -> str:
    """Say in one line what kept an upload from ending, and what to do next.

    Args:
        error: What the client of the hub raised.
        repo_id: The repository.
        token: The token that was given, if it is not that of the login.

    Returns:
        The line; no token is in it.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    for cause in _chain(error):
        if isinstance(cause, HfHubHTTPError):
            return _explain_answer(cause, repo_id, token)
        if isinstance(cause, OSError) and cause.errno in FULL:
            return (
                f"{cause.strerror}: {cause.filename or 'while uploading'}. Make room and try again."
            )
        if isinstance(cause, json.JSONDecodeError):
            return (
                "What answered was no hub: it is not JSON. Check HF_ENDPOINT, and whether a proxy "
                "stands between."
            )
        if isinstance(cause, HTTPError | ConnectionError | TimeoutError | OfflineModeIsEnabled):
            return (
                f"The connection to the hub failed: {_said(cause, token)} Check the network and HF_ENDPOINT "
                "and try again; what has arrived is not sent twice."
            )
    return f"The upload to {repo_id} failed: {_said(error, token)}"


def _explain_answer(error: HfHubHTTPError, repo_id: str, token: str | None) -> str:
    """Explain an error that the hub answered with."""
    status = error.response.status_code
    said = _said(error.server_message or "", token)
    about = f" The hub says: {said}" if said else ""
    owner = repo_id.split("/")[0]
    if status in NO_ROOM or "storage" in said.lower():
        return (
            f"The hub has no room left for {repo_id}.{about} Delete what is not needed there, or get "
            "more room, and try again."
        )
    if status == 401:
        named = next((f"in {name}" for name in TOKEN_NAMES if os.environ.get(name)), None)
        where = "that was given" if token else named or "of the stored login"
        return (
            f"The hub does not accept the token {where}.{about} Make one that may write in your "
            f"account's settings, then {LOGIN}."
        )
    if status in (403, 404):
        return (
            f"There is no user or organisation {owner!r}, or this login may not write to {repo_id}."
            f"{about} Check the name, and whom you are with: hf auth whoami"
        )
    if status in CHANGED_MEANWHILE:
        return f"{repo_id} was changed by somebody else meanwhile.{about} Try again."
    if status == 429:
        return f"The hub asks for a pause (status 429).{about} Try again in some minutes."
    if status >= 500:
        return (
            f"The hub failed (status {status}).{about} Try again later; what has arrived is not sent "
            "twice."
        )
    return f"The hub refuses the upload to {repo_id} (status {status}).{about}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _said(what: BaseException | str, token: str | None) -> str:
    """Return a message as one sentence, without the token."""
    from huggingface_hub import get_token

    if what == "":
        return ""
    text = " ".join(str(what).split()) or type(what).__name__
    secrets = {token, get_token(), *map(os.environ.get, TOKEN_NAMES)}
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text if text.endswith((".", "!", "?")) else f"{text}."
