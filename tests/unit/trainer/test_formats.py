"""Which text of a row the model sees, and which part of it is learned."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.trainer.conftest import tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from finetune_trainer.contract import LossOn, TrainingConfig
from finetune_trainer.data.chat_template import ChatTemplate
from finetune_trainer.data.encode import IGNORED, Encoded, Encoder
from finetune_trainer.data.formats import FORMATS, detect
from finetune_trainer.data.formats.base import InvalidRow, RowFormat
from finetune_trainer.data.formats.chat import Chat
from finetune_trainer.data.formats.prompt_completion import PromptCompletion
from finetune_trainer.data.formats.text import Text


def encoded(tokenizer: Any, form: RowFormat, row: dict[str, Any], **training: Any) -> Encoded:
    encoder = Encoder.of(tokenizer, TrainingConfig(**training))
    (verdict,) = encoder.encode([form.render(row, ChatTemplate(tokenizer))])
    if isinstance(verdict, InvalidRow):
        raise verdict
    (only,) = verdict
    return only


def learned(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode([token for token in row.labels if token != IGNORED]))


def seen(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode(row.input_ids))


def test_an_instruct_model_sees_prompt_and_completion_as_a_chat_and_learns_the_completion(tokenizer: Any) -> None:
    row = encoded(tokenizer, PromptCompletion(), {"prompt": "quick fox?", "completion": "lazy dög"})
    assert seen(tokenizer, row) == "<|user|>quick fox?<end>\n<|assistant|>lazy dög<end>\n"
    assert learned(tokenizer, row) == "lazy dög<end>\n"


def test_a_base_model_sees_prompt_and_completion_joined_and_learns_when_to_stop() -> None:
    base = tiny_tokenizer(chat=False)
    row = encoded(base, PromptCompletion(), {"prompt": "2 + 2 = ", "completion": "4"})
    assert seen(base, row) == "2 + 2 = 4<end>"
    assert learned(base, row) == "4<end>"


def test_every_answer_in_a_chat_is_learned_and_nothing_else(tokenizer: Any) -> None:
    turns = [("system", "be brief"), ("user", "fox?"), ("assistant", "dog"), ("user", "owl?"), ("assistant", "fox")]
    row = encoded(tokenizer, Chat(), {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert learned(tokenizer, row) == "dog<end>\nfox<end>\n"


def test_a_template_that_rewrites_earlier_answers_teaches_only_the_last() -> None:
    forgetful = tiny_tokenizer()
    forgetful.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{{ m.content if loop.last or m.role != 'assistant' else 'forgotten' }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    turns = [("user", "fox?"), ("assistant", "dog"), ("user", "owl?"), ("assistant", "fox")]
    row = encoded(forgetful, Chat(), {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert learned(forgetful, row) == "fox<end>"


def test_a_text_is_learned_as_a_whole(tokenizer: Any) -> None:
    row = encoded(tokenizer, Text(), {"text": "the quick brown fox"})
    assert learned(tokenizer, row) == "the quick brown fox<end>"


@pytest.mark.parametrize("training", [{"loss_on": LossOn.ALL}, {"objective": "self-supervised"}])
def test_the_prompt_is_learned_too_when_the_job_says_so(tokenizer: Any, training: dict[str, Any]) -> None:
    row = encoded(tokenizer, PromptCompletion(), {"prompt": "fox?", "completion": "dog"}, **training)
    assert row.labels == row.input_ids


def test_a_long_row_is_cut_and_counted(tokenizer: Any) -> None:
    long = {"prompt": "fox", "completion": "fox " * 100}
    row = encoded(tokenizer, PromptCompletion(), long, max_sequence_length=16)
    whole = encoded(tokenizer, PromptCompletion(), long, max_sequence_length=1024)
    assert (len(row.input_ids), len(row.labels), row.cut) == (16, 16, len(whole.input_ids) - 16)
    assert (row.teaches_stop, whole.teaches_stop) == (False, True)


def test_a_long_document_becomes_several_rows_of_which_every_token_is_learned_once(tokenizer: Any) -> None:
    encoder = Encoder.of(tokenizer, TrainingConfig(max_sequence_length=64))
    rendered = Text().render({"text": "small owl " * 5000}, ChatTemplate(tokenizer))
    (pieces,) = encoder.encode([rendered])
    (whole,) = Encoder.of(tokenizer, TrainingConfig(max_sequence_length=99_999)).encode([rendered])
    assert isinstance(pieces, list)
    assert isinstance(whole, list)
    assert len(pieces) > 100
    assert all(1 < len(piece.input_ids) <= 64 and piece.cut == 0 for piece in pieces)
    predicted = [label for piece in pieces for label in piece.labels[1:]]
    assert predicted == whole[0].labels[1:]
    assert [piece.teaches_stop for piece in pieces[-2:]] == [False, True]


def with_ends(tokenizer: Any) -> Any:
    """A tokenizer that adds the tokens which begin and end a document, as Llama's and Gemma's do."""
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    ends = [("<bos>", tokenizer.bos_token_id), ("<end>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A <end>", special_tokens=ends)
    return tokenizer


def test_the_end_that_the_tokenizer_adds_itself_is_learned() -> None:
    base = with_ends(tiny_tokenizer(chat=False))
    row = encoded(base, PromptCompletion(), {"prompt": "2 + 2 = ", "completion": "4"})
    assert seen(base, row) == "<bos>2 + 2 = 4<end>"
    assert learned(base, row) == "4<end>"
    assert row.teaches_stop


def test_a_text_that_holds_the_models_markers_gets_them_once() -> None:
    base = with_ends(tiny_tokenizer())
    for written in ("<bos><|user|>fox?<end>\n<|assistant|>dog<end>", "<bos>the fox"):
        assert seen(base, encoded(base, Text(), {"text": written})) == f"{written.removesuffix('<end>')}<end>"
    row = encoded(base, PromptCompletion(), {"prompt": "<bos><|user|>fox?<end>\n<|assistant|>", "completion": "dog"})
    assert seen(base, row) == "<bos><|user|>fox?<end>\n<|assistant|>dog<end>"
    assert learned(base, row) == "dog<end>"


def test_a_text_that_ends_with_a_marker_and_a_line_feed_is_not_ended_again(tokenizer: Any) -> None:
    row = encoded(tokenizer, Text(), {"text": "<|user|>fox?<end>\n<|assistant|>dog<end>\n"})
    assert seen(tokenizer, row).count("<end>") == 2
    assert row.teaches_stop


def test_a_row_whose_prompt_fills_the_length_is_invalid_since_nothing_is_learned(tokenizer: Any) -> None:
    with pytest.raises(InvalidRow, match=r"nothing to learn is left within maxSequenceLength \(16 tokens\)"):
        encoded(tokenizer, PromptCompletion(), {"prompt": "fox " * 100, "completion": "dog"}, max_sequence_length=16)


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        (PromptCompletion(), {"prompt": "a"}, "`completion` is missing"),
        (PromptCompletion(), {"prompt": "a", "completion": " \n"}, "`completion` is empty"),
        (PromptCompletion(), {"prompt": 3, "completion": "b"}, "`prompt` is int, not text"),
        (Text(), {"text": ""}, "`text` is empty"),
        (Chat(), {"messages": []}, "`messages` is not a list of messages"),
        (Chat(), {"messages": [{"role": "user", "content": "a"}]}, "no message is the assistant's"),
        (Chat(), {"messages": [{"role": "bot", "content": "a"}]}, "message 1 has the role 'bot'"),
        (Chat(), {"messages": [{"role": "assistant", "content": None}]}, "`content` of message 1"),
        (Chat(), {"messages": ["a"]}, "message 1 is not an object"),
    ],
)
def test_an_invalid_row_says_why(form: RowFormat, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRow) as refusal:
        form.check(row)
    assert reason in str(refusal.value)


def test_a_template_that_refuses_a_chat_makes_the_row_invalid_in_its_own_words() -> None:
    strict = tiny_tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRow, match="roles must alternate"):
        encoded(strict, PromptCompletion(), {"prompt": "a", "completion": "b"})


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_format_is_detected_by_its_columns(form: RowFormat) -> None:
    assert detect([*form.columns, "id"], {}) is form


def test_a_format_is_detected_by_mapped_columns() -> None:
    found = detect(["question", "answer"], {"prompt": "question", "completion": "answer"})
    assert found is not None
    assert found.name == "prompt-completion"


def test_unknown_columns_fit_no_format() -> None:
    assert detect(["question", "answer"], {}) is None
