"""What pydantic finds wrong with a document, in words for the person who wrote it."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from finetune_operator.cli.errors import Problem

_VALUE_ERROR: Final = "Value error, "
_SHOULD: Final = re.compile(r"^[A-Z][a-z]+ should")


def problems_of(error: ValidationError, model: type[BaseModel], document: Any) -> list[Problem]:
    """Pydantic's findings as a person reads them: a path as in the YAML, what is wrong, what would be right."""
    found: dict[str, Problem] = {}
    for one in error.errors(include_url=False):
        path = _in_document(one["loc"], document)
        where = _dotted(path)
        what, advice = _words(one["type"], one["msg"], path, model)
        found.setdefault(where, Problem(where, what, advice))
    return [problem for where, problem in found.items() if not _follows(where, found)]


def _follows(where: str, found: Mapping[str, Problem]) -> bool:
    """Whether it only says that a list lacks an item, which it does because that item is wrong."""
    return any(other.startswith(f"{where}[") for other in found)


def _words(kind: str, message: str, path: Sequence[str | int], model: type[BaseModel]) -> tuple[str, str]:
    if kind == "extra_forbidden":
        names = _names(_model_at(model, path[:-1]))
        close = difflib.get_close_matches(str(path[-1]), names, n=1)
        guess = f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"
        return "unknown field", guess
    field = _field_at(model, path)
    about = " ".join((field.description or "").split()) if field is not None else ""
    if kind == "missing":
        return "required, and not there", about
    words = _SHOULD.sub("must", message.removeprefix(_VALUE_ERROR)).replace(" after validation", "")
    return words, "" if message.startswith(_VALUE_ERROR) else about


def _in_document(loc: Sequence[str | int], document: Any) -> list[str | int]:
    """The location without the names of union members, which the document does not hold."""
    path: list[str | int] = []
    here = document
    for part in loc:
        if isinstance(here, dict):
            here = here.get(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            break
        path.append(part)
    return path


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _names(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _field_at(model: type[BaseModel], path: Sequence[str | int]) -> FieldInfo | None:
    if not path or not isinstance(path[-1], str):
        return None
    parent = _model_at(model, path[:-1])
    fields = parent.model_fields.items() if parent else ()
    return next((field for name, field in fields if path[-1] in (name, field.alias)), None)


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        fields = here.model_fields.items() if here else ()
        field = next((field for name, field in fields if part in (name, field.alias)), None)
        here = _model_in(field.annotation) if field is not None else None
    return here


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds, through Optional, tuples and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, list):
        return next((found for one in get_args(annotation) if (found := _model_in(one))), None)
    return None
