"""Every family of models whose chat template the installed TRL ships: what of a chat is learned."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from tests.unit.trainer.conftest import tiny_tokenizer
from trl.chat_template_utils import get_training_chat_template

from finetune_trainer.contract import TrainingConfig
from finetune_trainer.data.chat_template import ChatTemplate
from finetune_trainer.data.encode import IGNORED, Encoded, Encoder
from finetune_trainer.data.formats.base import InvalidRow
from finetune_trainer.data.formats.chat import Chat
from finetune_trainer.data.formats.prompt_completion import PromptCompletion
from finetune_trainer.data.training_templates import template_files, training_template

FILES = template_files()
FAMILIES = sorted(name for name in FILES if not name.endswith("_training"))
BAR = "\uff5c"
"""DeepSeek's markers have a wide bar and a low block for a space."""
STOPS = (
    *("<|END_OF_TURN_TOKEN|>", "<|user|>", "<|end|>", "<|return|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<turn|>"),
    *("<end_of_turn>", "<end_of_utterance>", "</s>", "<eos>", f"<{BAR}end\u2581of\u2581sentence{BAR}>"),
)
CHAT = [("user", "First?"), ("assistant", "Alpha."), ("user", "Second?"), ("assistant", "Omega.")]


@cache
def family(name: str, template: str | None = None) -> Any:
    """A tiny tokenizer with the family's template and the markers in it."""
    tokenizer = tiny_tokenizer()
    text = template or FILES[name]
    markers = sorted(set(re.findall(rf"<[|{BAR}/]?[\w \u2581]+[|{BAR}]?>|\[/?INST\]", text)))
    tokenizer.add_special_tokens({"extra_special_tokens": markers, "bos_token": "<bos>", "eos_token": "<eos>"})
    tokenizer.chat_template = text
    return tokenizer


def encoded(tokenizer: Any, row: dict[str, Any]) -> Encoded:
    encoder = Encoder.of(tokenizer, TrainingConfig(max_sequence_length=9999))
    (verdict,) = encoder.encode([Chat().render(row, ChatTemplate(tokenizer))])
    assert isinstance(verdict, list)
    return verdict[0]


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def parts(tokenizer: Any, row: Encoded) -> list[str]:
    """What is learned, each part by itself, without the white space around."""
    found, part = [], []
    for label in [*row.labels, IGNORED]:
        if label != IGNORED:
            part.append(label)
        elif part:
            found.append(tokenizer.decode(part).strip())
            part = []
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_is_learned_with_the_token_that_ends_it_and_no_question(name: str) -> None:
    tokenizer = family(name)
    row = encoded(tokenizer, chat(*CHAT))
    first, last = parts(tokenizer, row)
    assert "Alpha." in first
    assert "Omega." in last
    assert first.endswith(STOPS)
    assert last.endswith(STOPS)
    assert row.teaches_stop
    assert "First?" in tokenizer.decode(row.input_ids)
    assert "?" not in first + last


@pytest.mark.parametrize("name", FAMILIES)
def test_the_files_are_chosen_as_trl_chooses_them(name: str) -> None:
    try:
        expected = get_training_chat_template(family(name)) or FILES[name]
    except ValueError:  # one that TRL has no training template for
        expected = None
    assert training_template(FILES[name]) == expected


@pytest.mark.parametrize("name", ["qwen3", "glm4moe", "nemotron_3_nano", "gptoss", "qwen3_6"])
def test_reasoning_is_kept_and_learned(name: str) -> None:
    tokenizer = family(name)
    row = chat(("user", "First?"), ("assistant", "Alpha."))
    row["messages"][1]["reasoning_content"] = "because of it"
    (learned,) = parts(tokenizer, encoded(tokenizer, row))
    assert learned.index("because of it") < learned.index("Alpha.")


@pytest.mark.parametrize(("name", "dropped"), [("qwen3", 0), ("glm4moe", 1), ("gptoss", 1), ("nemotron_3_nano", 1)])
def test_reasoning_that_the_template_keeps_for_the_last_answer_alone_is_counted(name: str, dropped: int) -> None:
    row = chat(*CHAT)
    row["messages"][1]["reasoning_content"] = "because of this"
    row["messages"][3]["reasoning_content"] = "because of that"
    assert Chat().render(row, ChatTemplate(family(name))).unlearned_answers == dropped


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe", "llama3_1", "nemotron_3_nano", "deepseekv3", "gemma4"])
@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_tools_and_calls_are_kept_and_calls_are_learned(name: str, arguments: Any) -> None:
    tokenizer = family(name)
    row = chat(("user", "Weather?"), ("assistant", ""), ("tool", "17 degrees"), ("assistant", "Mild."))
    row["messages"][1] |= {"content": None, "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    ]}  # fmt: skip
    row["messages"][2] |= {"name": "look_up", "tool_call_id": "call00001"}
    if name != "deepseekv3":  # whose template has no place for them
        row["tools"] = [{"type": "function", "function": {
            "name": "look_up", "description": "the weather now", "parameters": {"type": "object", "properties": {}}
        }}]  # fmt: skip
    found = encoded(tokenizer, row)
    seen, learned = tokenizer.decode(found.input_ids), " ".join(parts(tokenizer, found))
    assert "17 degrees" in seen
    assert ("the weather now" in seen) == (name != "deepseekv3")
    assert "look_up" in learned
    assert "Oslo" in learned
    assert "17 degrees" not in learned


@pytest.mark.parametrize(
    ("name", "more", "what"),
    [
        ("llama3", {"reasoning_content": "hm"}, "reasoning_content"),
        ("phi3", {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "tool_calls"),
    ],
)
def test_what_the_template_would_drop_makes_the_row_invalid(name: str, more: dict[str, Any], what: str) -> None:
    row = chat(("user", "First?"), ("assistant", "Alpha."))
    row["messages"][1] |= more
    with pytest.raises(InvalidRow, match=f"the chat template does not show {what}"):
        encoded(family(name), row)


def test_parquet_rows_have_none_for_what_a_message_lacks() -> None:
    row = chat(*CHAT, tools=None)
    for message in row["messages"]:
        message.update(tool_calls=None, reasoning_content=None, name=None)
    tokenizer = family("qwen3")
    assert encoded(tokenizer, row) == encoded(tokenizer, chat(*CHAT))


def test_text_in_parts_is_text() -> None:
    row = {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in CHAT]}
    assert encoded(family("qwen3"), row) == encoded(family("qwen3"), chat(*CHAT))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(*CHAT, tools="{"), "`tools` is not JSON"),
        (chat(*CHAT, tools=[1]), "`tools` is not a list of JSON schemas"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "has no function with a name"),
        ({"messages": [{"role": "assistant", "tool_calls": "f"}]}, "`tool_calls` of message 1 is not a list"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]},
            "`arguments` of f in message 1 is not JSON",
        ),
    ],
)
def test_broken_tools_say_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRow) as refusal:
        Chat().check(row)
    assert reason in str(refusal.value)


GLM4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_an_unknown_template_without_an_end_of_turn_teaches_where_the_next_turn_begins_and_the_text_ends() -> None:
    tokenizer = family("glm4", GLM4)
    assert "<eos>" not in GLM4
    assert parts(tokenizer, encoded(tokenizer, chat(*CHAT))) == ["Alpha.<|user|>", "Omega.<eos>"]


def test_a_template_with_the_date_gives_the_same_rows_on_any_day() -> None:
    tokenizer = family("llama3_2")
    assert "26 Jul 2024" in tokenizer.decode(encoded(tokenizer, chat(*CHAT)).input_ids)
    tokenizer = family("gptoss")
    assert "2024-07-26" in tokenizer.decode(encoded(tokenizer, chat(*CHAT)).input_ids)


def test_a_prompt_written_as_the_template_writes_it_is_not_put_into_it_again() -> None:
    tokenizer = family("qwen2_5")
    template = ChatTemplate(tokenizer)
    written = "<|im_start|>user\nFirst?<|im_end|>\n<|im_start|>assistant\n"
    row = PromptCompletion().render({"prompt": written, "completion": "Alpha.<|im_end|>"}, template)
    assert row.text == written + "Alpha.<|im_end|>"
    (found,) = Encoder.of(tokenizer, TrainingConfig()).encode([row])
    assert isinstance(found, list)
    assert parts(tokenizer, found[0]) == ["Alpha.<|im_end|>"]
