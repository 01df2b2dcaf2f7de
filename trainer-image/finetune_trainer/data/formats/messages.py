"""A chat's messages as chat templates take them, tool calls and reasoning included."""

from __future__ import annotations

import json
from typing import Any, Final

from finetune_trainer.data.formats.base import Conversation, InvalidRow, Row

_ROLES: Final = ("system", "user", "assistant", "tool", "developer")
_KEPT: Final = ("name", "tool_call_id", "reasoning_content")
"""Fields besides role, content and tool calls that templates show; parquet gives those without a value as None."""


def conversation(row: Row) -> Conversation:
    """Raises `InvalidRow` naming the message that is wrong."""
    messages = row.get("messages")
    if messages is None:
        raise InvalidRow("`messages` is missing")
    if not isinstance(messages, list) or not messages:
        raise InvalidRow("`messages` is not a list of messages")
    found = tuple(_message(number, message) for number, message in enumerate(messages, start=1))
    if not any(message["role"] == "assistant" for message in found):
        raise InvalidRow("no message is the assistant's")
    return Conversation(found, _tools(row.get("tools")))


def _message(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRow(f"message {number} is not an object with `role` and `content`")
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRow(f"message {number} has the role {role!r}, not one of {', '.join(_ROLES)}")
    found = {"role": role, **{key: message[key] for key in _KEPT if message.get(key) is not None}}
    if calls := message.get("tool_calls"):
        found["tool_calls"] = _calls(number, calls)
    content = _text(message.get("content"))
    says_more = role == "tool" or "tool_calls" in found
    if content is None and says_more:
        content = ""
    if content is None or not (content.strip() or says_more):
        raise InvalidRow(f"`content` of message {number} ({role}) is empty or no text")
    return {**found, "content": content}


def _text(content: Any) -> str | None:
    """Text, also in parts: `[{"type": "text", "text": "..."}]`; None for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(parts) if len(parts) == len(content) else None


def _calls(number: int, calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise InvalidRow(f"`tool_calls` of message {number} is not a list")
    return [_call(number, call) for call in calls]


def _call(number: int, call: Any) -> dict[str, Any]:
    """Arguments become an object, as templates want them: OpenAI's interface writes them as JSON in a text."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRow(f"a call in `tool_calls` of message {number} has no function with a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _json(arguments, f"`arguments` of {function['name']} in message {number}")
    if not isinstance(arguments, dict | None):
        raise InvalidRow(f"`arguments` of {function['name']} in message {number} is not an object")
    known = {"id": call["id"]} if call.get("id") is not None else {}
    return {**known, "type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


def _tools(tools: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(tools, str):
        tools = _json(tools, "`tools`") if tools.strip() else None
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InvalidRow("`tools` is not a list of JSON schemas")
    return tuple(tools)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise InvalidRow(f"{what} is not JSON: {error}") from error
