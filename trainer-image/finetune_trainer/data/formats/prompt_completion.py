"""`{"prompt": "...", "completion": "..."}`: the completion is learned.

A model with a chat template sees a user's message and the assistant's; one without sees the two texts joined, and so
does one whose prompts are written as its template would write them.
"""

from __future__ import annotations

from finetune_trainer.contract import DataFormat
from finetune_trainer.data.formats.base import Conversation, Rendered, Row, Template, text_of
from finetune_trainer.data.formats.chat import render_chat


class PromptCompletion:
    name = DataFormat.PROMPT_COMPLETION
    columns = ("prompt", "completion")
    optional = ()

    def check(self, row: Row) -> None:
        for column in self.columns:
            text_of(row, column)

    def render(self, row: Row, template: Template) -> Rendered:
        prompt, completion = (text_of(row, column) for column in self.columns)
        if template.exists and not template.is_rendered(prompt):
            messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": completion})
            return render_chat(Conversation(messages), template)
        text = prompt + completion
        return Rendered(text, ((len(prompt), len(text)),), special_tokens=True)
