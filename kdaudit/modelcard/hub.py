"""The hub's side of `kdaudit card --push`: the card of a repository, and the commit with card and report.

A card that was fetched is committed on top of the commit that it was read from: if somebody changed the
repository in between, the hub refuses instead of losing that change. The token is the one that
huggingface_hub finds (`hf auth login`, or HF_TOKEN).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, constants, errors

from kdaudit import __version__
from kdaudit.errors import KdauditError, RunError, UsageError, reason
from kdaudit.models.hub import LOOKUP_SECONDS, UPLOAD_SECONDS, within
from kdaudit.runs.files import read_bounded
from kdaudit.runs.layout import MODEL_CARD

MAX_CARD_BYTES = 8 << 20
"""Cards of embedding models list thousands of results; more is another file given by mistake."""
_NOTHING = "nothing was uploaded or written"
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubCard(NamedTuple):
    """The current card of a repository."""

    text: str
    """Empty where it has none."""
    commit: str | None
    """Hash of the commit that it was read from."""


def fetch_card(repo: str) -> HubCard:
    """The card on the main branch of a model's repository.

    Raises:
        UsageError: `repo` is not a repository id, or its card is not UTF-8.
        RunError: the hub cannot be reached, or does not show the repository.

    """
    api, what = HfApi(), f"--push: {repo}, {_NOTHING}"
    try:
        commit = within(LOOKUP_SECONDS, lambda: api.model_info(repo), what).sha
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found = within(
                LOOKUP_SECONDS,
                lambda: api.hf_hub_download(repo, MODEL_CARD, revision=commit, local_dir=folder),
                what,
            )
            return HubCard(read_bounded(Path(found), MAX_CARD_BYTES).decode(), commit)
    except KdauditError:
        raise
    except errors.RemoteEntryNotFoundError:
        return HubCard("", commit)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the {MODEL_CARD} of {repo} is not UTF-8", fix="convert it, then try again", where="--push"
        ) from error
    except Exception as error:  # the client raises errors of several unrelated families
        raise _as_ours(error, repo) from error


def push(
    repo: str,
    files: Mapping[str, bytes],
    *,
    parent: str | None,
    create_pr: bool,
    warn: Callable[[str], None],
) -> str | None:
    """Upload files in one commit to main, or in one pull request.

    Args:
        repo: id of a model's repository.
        files: contents by their path in it.
        parent: the commit to build upon; None for the newest.
        create_pr: open a pull request instead of committing to main.
        warn: receives the hub's remarks on the card.

    Returns:
        The address of the commit or pull request; None if the repository holds these files already.

    Raises:
        UsageError: `repo` is not a repository id, or the hub finds the card's metadata invalid.
        RunError: the hub cannot be reached or refuses.

    """
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            commit = within(
                UPLOAD_SECONDS,
                lambda: HfApi().create_commit(
                    repo,
                    operations,
                    commit_message=f"Privacy audit by kdaudit {__version__}",
                    create_pr=create_pr,
                    parent_commit=parent,
                ),
                f"--push: check whether {repo} has the upload; nothing was written here",
            )
        except KdauditError:
            raise
        except Exception as error:  # as above
            raise _as_ours(error, repo, uploading=True) from error
    for remark in remarks:
        if issubclass(remark.category, UserWarning):
            warn(" ".join(str(remark.message).split()))
    if not any(operation._is_committed for operation in operations):
        return None
    return commit.pr_url or commit.commit_url


def _as_ours(error: Exception, repo: str, *, uploading: bool = False) -> KdauditError:
    """The client's error as one of ours; the more specific classes come first."""
    if isinstance(error, errors.HFValidationError):
        return UsageError(
            f"{repo} is not a repository id", fix="write it as name or org/name", where="--push"
        )
    if isinstance(error, ValueError) and not isinstance(error, errors.HfHubHTTPError):
        said = " ".join(str(error).split())
        return UsageError(
            f"the hub does not accept the card ({said})", fix=f"fix it; {_NOTHING}", where="--push"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return RunError(f"--push: {_refusal(error, repo)}; {_NOTHING}")
    # An answer can be lost after the upload was taken.
    done = f"check whether {repo} has the upload; nothing was written here" if uploading else _NOTHING
    return RunError(
        f"--push: the hub at {constants.ENDPOINT} cannot be reached ({reason(error)}); check the network, "
        f"HF_ENDPOINT and HF_HUB_OFFLINE; {done}"
    )


def _refusal(error: errors.HfHubHTTPError, repo: str) -> str:
    status = error.response.status_code
    if isinstance(error, errors.RepositoryNotFoundError) and status == 404:
        return (
            f"the hub at {constants.ENDPOINT} has no model {repo}, or does not show it to you; correct it, "
            f"make it, or {_LOGIN}"
        )
    if status in (401, 403):
        said = f": {error.server_message}" if error.server_message else ""
        return f"the hub does not let you write to {repo} ({status}{said}); {_LOGIN}, with a token that may"
    if status in (409, 412):
        return f"{repo} was changed meanwhile ({status}); try again"
    return f"the hub refuses ({status}: {error.server_message or reason(error)}); try again later"
