"""`kdaudit card`: puts a run's audit into a model card, and uploads it if asked to.

The run directory is only read. A push uploads the card first and then writes it here, so that a push that
fails leaves every local file unchanged.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import RunStateError, StorageError, UsageError
from kdaudit.modelcard.document import Contribution, updated
from kdaudit.modelcard.hub import MAX_CARD_BYTES, HubCard, fetch_card, push
from kdaudit.modelcard.metadata import evaluation
from kdaudit.modelcard.section import escaped, section_text
from kdaudit.modelcard.student import about, chosen_student
from kdaudit.models.resolving import local_fingerprint
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.render import MOST_BYTES, read_results
from kdaudit.reporting.shown_text import visible
from kdaudit.runs import layout
from kdaudit.runs.files import read_bounded, replacing
from kdaudit.runs.verify import refuse_changed
from kdaudit.schemas.results import AuditResults

_MARKDOWN = (".md", ".markdown")


class Upload(NamedTuple):
    """Where to upload card and public report."""

    repo: str
    """Id of a model's repository."""
    create_pr: bool
    """Open a pull request instead of committing to main."""


class CardResult(NamedTuple):
    """The outcome for the card."""

    student: str
    card: Path | None
    """The local card; None if the repository's own was changed."""
    url: str | None
    """The commit or pull request; None without a push, or if the hub had all files already."""


def write_card(
    run_dir: Path,
    *,
    student: str | None,
    card: Path | None,
    upload: Upload | None,
    warn: Callable[[str], None],
) -> CardResult:
    """Put a student's audit into its model card.

    Args:
        run_dir: a finished run.
        student: its name; None if the run has only one.
        card: the card, made if absent. None means the repository's own with `upload`, and README.md in the
            student's folder without.
        upload: where to upload the card and the public report; None to upload nothing.
        warn: receives the hub's remarks on the card.

    Raises:
        UsageError: student or card cannot be used as asked, or the student's folder holds another model now.
        RunStateError: the run holds no results, or its public report is damaged.
        RunError: the hub cannot be reached or refuses.
        StorageError: the card could not be written.

    """
    refuse_changed(run_dir, layout.RESULTS, "put it back, or repeat the audit with --fresh")
    results = read_results(run_dir)
    name = chosen_student(results, student)
    target = card if card or upload else _folder_of(run_dir, results, name) / layout.MODEL_CARD
    report = b"" if upload is None else _public_report(run_dir)
    local = None if target is None else _local(target, run_dir)
    # A pull request with a local card shows what it would change; a commit must not change anything unseen.
    replaces = upload is not None and (local is None or not upload.create_pr)
    hub = fetch_card(upload.repo) if upload and replaces else HubCard("", None)
    there = hub if local is None else local
    text = _updated(there.text, _contribution(results, name, upload), target or layout.MODEL_CARD)
    if upload and hub.text not in ("", there.text, text):
        raise UsageError(
            f"{target} is not the card of {upload.repo}, which it would replace",
            fix="leave --card out to change that one, or open a pull request (--create-pr), which "
            "shows the difference",
            where="--card",
        )
    url = None
    if upload:
        files = {layout.MODEL_CARD: text.encode(), layout.PUBLIC_REPORT: report}
        url = push(upload.repo, files, parent=hub.commit, create_pr=upload.create_pr, warn=warn)
    if target and text != there.text:
        try:
            _write(target, text)
        except StorageError as error:
            uploaded = "" if url is None else f"; the upload is done: {url}"
            raise StorageError(f"{error}{uploaded}") from error
    return CardResult(name, target, url)


def _contribution(results: AuditResults, student: str, upload: Upload | None) -> Contribution:
    own = about(without_private_parts(results), student)
    name = visible(" ".join(f"{results.name}-{student}".split()))
    return Contribution(
        title=escaped(name),
        model=upload.repo if upload else name,
        section=section_text(own, student),
        evaluation=evaluation(own, student),
    )


def _updated(card: str, given: Contribution, where: Path | str) -> str:
    try:
        return updated(card, given)
    except UsageError as error:
        error.where = str(where)
        raise


def _folder_of(run_dir: Path, results: AuditResults, student: str) -> Path:
    """The student's own folder, by the run's configuration, if it holds what was audited."""
    saved = run_dir / layout.CONFIG
    students = load_audit(saved).models.students if saved.exists() else []
    own = next((one for one in students if one.name == student), None)
    if own is None or not Path(own.path).is_absolute() or not Path(own.path).is_dir():  # a hub id never is
        raise UsageError(
            f"student {student} has no folder here for its card",
            fix="name the card with --card, or its repository with --push",
            where="--card",
        )
    if (
        local_fingerprint(own, f"models.students.{students.index(own)}")
        != results.models[student].fingerprint
    ):
        raise UsageError(
            f"{own.path}: the model there is not the one that was audited as {student}",
            fix="audit it again with `kdaudit run`, or name the audited model's card with --card",
        )
    return Path(own.path)


def _local(path: Path, run_dir: Path) -> HubCard:
    """A local card; empty if it does not exist yet."""
    if run_dir.resolve() in path.resolve().parents:
        raise UsageError(
            f"{path} lies in the run directory, whose files `kdaudit verify` checks",
            fix="name a card elsewhere",
            where="--card",
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"{path}: the folder {path.parent} does not exist",
            fix="make it, or name another card",
            where="--card",
        )
    if path.suffix.lower() not in _MARKDOWN:  # a corpus would be text too, and is not to be written into
        raise UsageError(
            f"{path} does not end in {' or '.join(_MARKDOWN)}", fix="name a Markdown file", where="--card"
        )
    if path.is_symlink() and path.parent.resolve() not in path.resolve().parents:
        raise UsageError(
            f"{path} is a link to {path.resolve()}, outside its folder",
            fix="name the file itself if it is the card",
            where="--card",
        )
    try:
        return HubCard(read_bounded(path, MAX_CARD_BYTES).decode(), None)
    except FileNotFoundError:
        return HubCard("", None)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", fix="convert it, then try again", where="--card") from error
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", fix="name a Markdown file", where="--card"
        ) from error


def _write(path: Path, text: str) -> None:
    """The card, with the permissions that it had; where its name is a link, the file behind it."""
    path = path.resolve()
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    with replacing(path, private=True) as partial:
        partial.write_bytes(text.encode())
        partial.chmod(mode)


def _public_report(run_dir: Path) -> bytes:
    """The public report, as the run wrote it."""
    path, remedy = run_dir / layout.PUBLIC_REPORT, "render it again with `kdaudit report`"
    refuse_changed(run_dir, layout.PUBLIC_REPORT, remedy)
    try:
        return read_bounded(path, MOST_BYTES)
    except OSError as error:
        raise RunStateError(f"{path}: cannot be read ({error.strerror})", fix=remedy) from error
