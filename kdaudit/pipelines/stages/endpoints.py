"""What is asked of models behind endpoints before anything costs time."""

from __future__ import annotations

from collections.abc import Iterable

from kdaudit.config.extraction import ExtractionBase
from kdaudit.errors import ModelError
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import uses_bos
from kdaudit.pipelines.stages.fit import split_of_model
from kdaudit.runs import Progress


def ask_endpoints(
    extraction: ExtractionBase, members: Iterable[AuditedModel], progress: Progress
) -> list[str]:
    """Check that each model behind an endpoint answers as an audit needs it; give the names of those asked.

    Raises:
        ModelError: one does not.

    """
    asked = []
    for member in members:
        if (endpoint := member.model.behind) is None:
            continue
        from kdaudit.inference.endpoint.checking import check_endpoint  # imports httpx

        progress(f"{member.name}: asking {endpoint.url}", 0, 0)
        split = split_of_model(extraction, member)
        way = check_endpoint(endpoint, member.tokenizer, member.key, split.tokens)
        if not way.ids_in and (split.bos is not None) != uses_bos(member.tokenizer):
            raise ModelError(
                f"{endpoint.url} takes text, and puts a BOS token before it or not as its tokenizer does",
                fix="set it to auto",
                key="extraction.bos",
            )
        asked.append(member.name)
    return asked
