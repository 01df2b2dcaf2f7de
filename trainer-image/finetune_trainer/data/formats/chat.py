"""`{"messages": [{"role": "user", "content": "..."}, ...]}`: every answer of the assistant is learned."""

from __future__ import annotations

from finetune_trainer.contract import DataFormat
from finetune_trainer.data.formats.base import Conversation, InvalidRow, Rendered, Row, Template
from finetune_trainer.data.formats.messages import conversation


class Chat:
    name = DataFormat.CHAT
    columns = ("messages",)
    optional = ("tools",)

    def check(self, row: Row) -> None:
        conversation(row)

    def render(self, row: Row, template: Template) -> Rendered:
        return render_chat(conversation(row), template)


def render_chat(chat: Conversation, template: Template) -> Rendered:
    """The whole conversation, with what the assistant generates learned.

    Where the template does not tell what that is, an answer is what rendering the chat until it and until before it
    differ by. A template that rewrites earlier turns then teaches only those answers which it leaves as they would be
    generated; the others are counted.
    """
    if (found := template.marked(chat)) is not None:
        text, spans = found
        if not spans:
            raise InvalidRow("the chat template marks nothing in it as the assistant's ({% generation %})")
        return Rendered(text, spans, special_tokens=False, unlearned_answers=_without_reasoning(chat, text))
    text = template.render(chat, answer_follows=False)
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    learned = []
    for index in answers:
        before = template.render(chat.until(index), answer_follows=True)
        after = template.render(chat.until(index + 1), answer_follows=False)
        if text.startswith(before) and text.startswith(after) and len(before) < len(after):
            learned.append((len(before), len(after)))
    if not learned:
        raise InvalidRow("the chat template does not show the assistant's answer as it would be generated")
    left = len(answers) - len(learned)
    return Rendered(text, tuple(learned), special_tokens=False, open_ended=True, unlearned_answers=left)


def _without_reasoning(chat: Conversation, text: str) -> int:
    """Of how many answers the template has dropped the reasoning: some keep only that of the last."""
    reasoning = (str(message.get("reasoning_content", "")).strip() for message in chat.messages)
    return sum(part not in text for part in reasoning)
