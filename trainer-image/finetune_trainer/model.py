"""The base model: fetched, its files, its configuration and its tokenizer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.blocks import LOADING, model_arguments, tokenizer_arguments
from finetune_trainer.contract import RunConfig, Stage
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.uris import Address, Fetched, Notify, fetch, fetched_before
from finetune_trainer.workspace import Paths

_URI = "spec.model.uri"


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder; `gguf` names the file in it when that is how the model is packed."""

    folder: Path
    gguf: str | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """What `from_pretrained` needs besides the folder."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def fetch_model(config: RunConfig, paths: Paths, notify: Notify) -> Path:
    """The base model's folder or file, downloaded unless it is here. Raises `NotFound` or `CannotWrite`."""
    address = _address(config, paths)
    if config.stage is not Stage.PREPARE and (before := fetched_before(address, paths, paths.model_dir)):
        return before.path
    return fetch(address, paths, paths.model_dir, notify).path


def model_revision(config: RunConfig, paths: Paths) -> str | None:
    """What pins the fetched model, where its source has revisions."""
    return _fetched(config, paths).revision


def model_files(config: RunConfig, paths: Paths) -> ModelFiles:
    """Raises `InvalidConfig` when what was fetched is not a model."""
    path = _fetched(config, paths).path
    if path.is_file():
        if path.suffix != ".gguf":
            raise InvalidConfig(
                f"`{path.name}` is not a model", field=_URI, advice="name a folder with config.json, or a .gguf file"
            )
        return ModelFiles(path.parent, path.name)
    if (path / "config.json").is_file():
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise InvalidConfig(f"`{config.model.uri}` has no weights", field=_URI, advice="add *.safetensors")
        return ModelFiles(path)
    found = sorted(file.name for file in path.glob("*.gguf"))
    if len(found) == 1:
        return ModelFiles(path, found[0])
    if found:
        raise InvalidConfig(
            f"`{config.model.uri}` holds several models: {', '.join(found)}", field=_URI, advice="name one of them"
        )
    raise InvalidConfig(
        f"`{config.model.uri}` is not a model: it has neither config.json nor a .gguf file",
        field=_URI,
        advice="name the folder that save_pretrained wrote, or a repository of the Hub",
    )


def load_config(config: RunConfig, paths: Paths) -> Any:
    """The model's `transformers` configuration with `modelConfig` applied. Raises `InvalidConfig`."""
    from transformers import AutoConfig  # noqa: PLC0415 - slow to import

    files = model_files(config, paths)
    trust = config.model.trust_remote_code
    try:
        found = AutoConfig.from_pretrained(files.folder, trust_remote_code=trust, **files.arguments)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise InvalidConfig(
                "the model provides code of its own",
                field="spec.model.trustRemoteCode",
                advice="set it to true if you trust the model's authors",
            ) from error
        raise InvalidConfig(f"`{config.model.uri}` cannot be used: {error}", field=_URI) from error
    for name, value in model_arguments(config.training, found).items():
        if name not in LOADING and hasattr(found, name):
            _set(found, name, value)
    return found


def load_tokenizer(config: RunConfig, paths: Paths) -> Any:
    """The model's tokenizer with the job's chat template, and something to pad with.

    After the prepare stage it is the very one that tokenised the dataset, saved beside it.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import

    saved = paths.tokenizer_dir
    if config.stage is not Stage.PREPARE and saved.is_dir():
        return AutoTokenizer.from_pretrained(saved, trust_remote_code=config.model.trust_remote_code)
    files = model_files(config, paths)
    arguments = tokenizer_arguments(config.training)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder, trust_remote_code=config.model.trust_remote_code, **files.arguments, **arguments
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"the tokenizer of `{config.model.uri}` cannot be loaded: {error}", field=_URI) from error
    if config.training.chat_template is not None:
        tokenizer.chat_template = config.training.chat_template
        _try_template(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def parameter_count(files: ModelFiles) -> int | None:
    """Counts the parameters from the headers of the weights; None for pickled weights."""
    if files.gguf is not None:
        from gguf import GGUFReader  # noqa: PLC0415

        return sum(int(tensor.n_elements) for tensor in GGUFReader(files.folder / files.gguf).tensors)
    shards = sorted(files.folder.glob("*.safetensors"))
    return sum(_tensor_elements(shard) for shard in shards) if shards else None


def _tensor_elements(shard: Path) -> int:
    """The format: 8 bytes little-endian length, that many bytes of JSON, then the tensors."""
    try:
        with shard.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InvalidConfig(
            f"`{shard.name}` is not a safetensors file", field=_URI, advice="upload the model again"
        ) from error


def _set(model_config: Any, name: str, value: Any) -> None:
    try:
        setattr(model_config, name, value)
    except Exception as error:  # the library's strict dataclasses raise types of their own, derived from Exception
        raise InvalidConfig(f"`{name}`: {error}", field=f"spec.training.modelConfig.{name}") from error


def _try_template(tokenizer: Any) -> None:
    import jinja2  # noqa: PLC0415

    rows = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        tokenizer.apply_chat_template(rows, tokenize=False)
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise InvalidConfig(
            f"the chat template cannot be rendered: {error}",
            field="spec.training.chatTemplate",
            advice="set it to a Jinja template over `messages`, `add_generation_prompt`, `bos_token` and `eos_token`",
        ) from error


def _address(config: RunConfig, paths: Paths) -> Address:
    pinned = config.prepared.model_revision if config.prepared is not None else None
    return Address.of_model(config.model, paths, pinned)


def _fetched(config: RunConfig, paths: Paths) -> Fetched:
    found = fetched_before(_address(config, paths), paths, paths.model_dir)
    if found is None:
        raise InvalidConfig(f"`{config.model.uri}` has not been fetched", field=_URI)
    return found
