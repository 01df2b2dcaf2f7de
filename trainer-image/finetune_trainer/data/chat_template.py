"""A tokenizer's chat template, as `formats.base.Template` asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Final

import jinja2

from finetune_trainer.data.formats.base import Conversation, InvalidRow, Spans
from finetune_trainer.data.training_templates import training_template

_TODAY: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""What templates that write the date write: the same rows give the same tokens on any day."""
_DATE_FORMAT: Final = re.compile(r"strftime_now\(\s*(?:\"([^\"]+)\"|'([^']+)')\s*\)")
_SENTINEL: Final = "Xq7Zk2"
_CALL: Final = {"type": "function", "function": {"name": _SENTINEL, "arguments": {"a": "b"}}}
_TOOL: Final = {
    "type": "function",
    "function": {"name": _SENTINEL, "description": "c", "parameters": {"type": "object", "properties": {}}},
}


class ChatTemplate:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._dropped: dict[str, bool] = {}

    @property
    def exists(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def marked(self, chat: Conversation) -> tuple[str, Spans] | None:
        """Through TRL's template for the family, or the model's own when that has markers."""
        if training_template(self._source(chat)) is None:
            return None
        self._check(chat)
        text, spans = self._rendered(chat)
        return text, tuple((start, end) for start, end in spans if start < end)

    def render(self, chat: Conversation, *, answer_follows: bool) -> str:
        """Raises `InvalidRow` with the template's own words when it refuses the messages."""
        if not chat.messages and not answer_follows:
            return ""
        self._check(chat)
        return self._rendered(chat, answer_follows=answer_follows)[0]

    def is_rendered(self, text: str) -> bool:
        return bool(self._cue) and text.rstrip().endswith((self._cue, self._cue.removesuffix("<think>").rstrip()))

    @cached_property
    def _cue(self) -> str:
        """What the template writes for the assistant to go on from; empty for one that writes nothing."""
        question = Conversation(({"role": "user", "content": _SENTINEL},))
        try:
            without, following = (self._rendered(question, answer_follows=follows)[0] for follows in (False, True))
        except InvalidRow:
            return ""
        return following.removeprefix(without).strip() if following.startswith(without) else ""

    @cached_property
    def _in_parts(self) -> bool:
        """Templates of some models that see images show only `[{"type": "text", "text": ...}]`, and drop a text."""
        chat = Conversation(({"role": "user", "content": _SENTINEL}, {"role": "assistant", "content": _SENTINEL}))
        for in_parts in (False, True):
            try:
                if self._rendered(chat, in_parts=in_parts)[0].count(_SENTINEL) > 1:
                    return in_parts
            except InvalidRow:
                continue
        return False

    def _check(self, chat: Conversation) -> None:
        """Raises `InvalidRow` for what the template would leave out without a word."""
        for what in _used(chat):
            if what not in self._dropped:
                self._dropped[what] = self._drops(what)
            if self._dropped[what]:
                raise InvalidRow(f"the chat template does not show {what}: remove them, or set another template")

    def _drops(self, what: str) -> bool:
        try:
            return _SENTINEL not in self._rendered(_PROBES[what])[0]
        except InvalidRow:  # it says so itself when it comes to the row
            return False

    def _source(self, chat: Conversation) -> str:
        return str(self._tokenizer.get_chat_template(tools=list(chat.tools) or None))

    def _rendered(
        self, chat: Conversation, *, answer_follows: bool = False, in_parts: bool | None = None
    ) -> tuple[str, Spans]:
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - slow to import

        source = self._source(chat)
        marked = training_template(source)
        in_parts = self._in_parts if in_parts is None else in_parts
        try:
            texts, spans = render_jinja_template(
                [[_parted(message) for message in chat.messages] if in_parts else list(chat.messages)],
                tools=list(chat.tools) or None,
                chat_template=_dated(marked or source),
                return_assistant_tokens_mask=marked is not None,
                add_generation_prompt=answer_follows,
                **self._tokenizer.special_tokens_map,
            )
        except (jinja2.TemplateError, ValueError, IndexError, TypeError, KeyError) as error:
            raise InvalidRow(f"the chat template refuses it: {error}") from error
        return str(texts[0]), tuple(spans[0]) if spans else ()


def _used(chat: Conversation) -> Iterator[str]:
    """What the conversation has besides questions and answers."""
    if chat.tools:
        yield "tools"
    roles = {message["role"] for message in chat.messages}
    yield from (f"messages of role {role}" for role in ("system", "developer", "tool") if role in roles)
    for field in ("tool_calls", "reasoning_content"):
        if any(field in message for message in chat.messages):
            yield field


def _probe(*messages: dict[str, Any]) -> Conversation:
    return Conversation(({"role": "user", "content": "hi"}, *messages))


_ANSWER: Final = {"role": "assistant", "content": "hello"}
_OTHER_CALL: Final = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
}
_PROBES: Final = {
    "tools": Conversation(({"role": "user", "content": "hi"}, _ANSWER), (_TOOL,)),
    "messages of role system": Conversation(
        ({"role": "system", "content": _SENTINEL}, {"role": "user", "content": "hi"}, _ANSWER)
    ),
    "messages of role developer": Conversation(
        ({"role": "developer", "content": _SENTINEL}, {"role": "user", "content": "hi"}, _ANSWER)
    ),
    "messages of role tool": _probe(_OTHER_CALL, {"role": "tool", "name": "f", "content": _SENTINEL}, _ANSWER),
    "tool_calls": _probe({"role": "assistant", "content": "", "tool_calls": [_CALL]}),
    "reasoning_content": _probe({**_ANSWER, "reasoning_content": _SENTINEL}),
}


def _parted(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


@cache
def _dated(template: str) -> str:
    """The template with the date fixed, where it asks for it in formats that it spells out."""
    formats = {double or single for double, single in _DATE_FORMAT.findall(template)}
    if not formats:
        return template
    cases = "".join(f"{{%- if f == '{form}' -%}}{_TODAY.strftime(form)}{{%- endif -%}}" for form in sorted(formats))
    return "{%- macro strftime_now(f) -%}" + cases + "{%- endmacro -%}" + template
