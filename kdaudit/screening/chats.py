"""What stays of a conversation in which answers are flagged."""

from __future__ import annotations

from kdaudit.corpus.conversations import Conversation, Flaw, is_answer
from kdaudit.schemas.screening import Drop
from kdaudit.screening.spans import Marks


def messages_left(conversation: Conversation | Flaw | None, marks: Marks | None, drop: Drop) -> int | None:
    """How many of a conversation's messages stay; None for all.

    With `drop: window` those up to the last answer before a flagged one stay; where none is there, or what
    would stay is the prompt's column alone, nothing does.
    """
    if not isinstance(conversation, Conversation) or marks is None or not marks.turns:
        return None
    if drop == "document":
        return 0
    answered = [turn + 1 for turn in range(marks.turns[0]) if is_answer(conversation.messages[turn])]
    last = max(answered, default=0)
    return last if last > conversation.before else 0


def said(conversation: Conversation | Flaw | None, messages: int) -> str:
    """What the first messages say."""
    return (
        Conversation(conversation.messages[:messages]).text if isinstance(conversation, Conversation) else ""
    )


def messages_of_column(conversation: Conversation | Flaw | None, messages: int | None) -> int | None:
    """How many of so many messages stand in the column that is cut; None for all."""
    if messages is None or not isinstance(conversation, Conversation):
        return None
    return messages - conversation.before
