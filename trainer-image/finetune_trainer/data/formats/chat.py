"""`{"messages": [{"role": "user", "content": "..."}, ...]}`: every answer of the assistant is learned."""

from __future__ import annotations

from typing import Any, Final

from finetune_trainer.contract import DataFormat
from finetune_trainer.data.formats.base import InvalidRow, Message, Rendered, Row, Template

_ROLES: Final = ("system", "user", "assistant", "tool", "developer")


class Chat:
    name = DataFormat.CHAT
    columns = ("messages",)

    def check(self, row: Row) -> None:
        _messages(row)

    def render(self, row: Row, template: Template) -> Rendered:
        return render_chat(_messages(row), template)


def render_chat(messages: list[Message], template: Template) -> Rendered:
    """The whole conversation, with the assistant's answers learned.

    A template that rewrites earlier turns (some drop the reasoning of all answers but the last) teaches only those
    answers which it leaves as they would be generated; the last must be one of them.
    """
    text = template.render(messages, answer_follows=False)
    learned = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = template.render(messages[:index], answer_follows=True)
        after = template.render(messages[: index + 1], answer_follows=False)
        if text.startswith(before) and text.startswith(after) and len(before) < len(after):
            learned.append((len(before), len(after)))
    if not learned:
        raise InvalidRow("the chat template does not show the assistant's answer as it would be generated")
    return Rendered(text, tuple(learned), special_tokens=False)


def _messages(row: Row) -> list[Message]:
    messages = row.get("messages")
    if messages is None:
        raise InvalidRow("`messages` is missing")
    if not isinstance(messages, list) or not messages:
        raise InvalidRow("`messages` is not a list of messages")
    found = [_message(number, message) for number, message in enumerate(messages, start=1)]
    if not any(message.role == "assistant" for message in found):
        raise InvalidRow("no message is the assistant's")
    return found


def _message(number: int, message: Any) -> Message:
    if not isinstance(message, dict):
        raise InvalidRow(f"message {number} is not an object with `role` and `content`")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise InvalidRow(f"message {number} has the role {role!r}, not one of {', '.join(_ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise InvalidRow(f"`content` of message {number} ({role}) is empty or no text")
    return Message(role, content)
