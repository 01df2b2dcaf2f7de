"""Which files of a dataset's repository belong to a split of a configuration: as the `datasets` library says."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from finetune_trainer.errors import InvalidData, StageError
from finetune_trainer.uris.address import Address, DatasetPart

CARDS: Final = frozenset({"README.md", ".huggingface.yaml", "dataset_infos.json"})
"""Files that say which configurations and splits there are."""


def files_of_part(address: Address, names: Iterable[str], folder: Path) -> list[str]:
    """The names of the files, of all those in the repository; `folder` holds its cards, and is written to.

    The library decides by the cards and by the names of the files, so that empty ones will do.
    Raises `InvalidData` with the choices when the address does not say which configuration or split it means.
    """
    for name in set(names) - CARDS:
        if not name.endswith(".py"):  # a script of the library's former versions, which nobody runs
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    part = address.part or DatasetPart(None, "train")
    try:
        splits = _splits(address, part, folder)
    except StageError:
        raise
    except Exception as error:  # the library and the parsers of the card raise what they like
        raise InvalidData(
            f"the configurations of `{address.uri}` cannot be told: {error}",
            field=address.field,
            advice="name a file or a folder of the repository: hf://owner/name/path",
        ) from error
    if part.split not in splits:
        raise _unknown(address, "split", part.split, splits)
    return [Path(file).resolve().relative_to(folder.resolve()).as_posix() for file in splits[part.split]]


def _splits(address: Address, part: DatasetPart, folder: Path) -> dict[str, list[str]]:
    import datasets  # noqa: PLC0415 - slow to import, and only datasets of the Hub need it

    configs = datasets.get_dataset_config_names(str(folder))
    config = part.config or datasets.get_dataset_default_config_name(str(folder))
    if config is None:
        raise InvalidData(
            f"`{address.uri}` has several configurations: {', '.join(configs)}",
            field=address.sibling("config"),
            advice="set it to one of them",
        )
    if config not in configs:
        raise _unknown(address, "config", config, configs)
    builder: Any = datasets.load_dataset_builder(str(folder), config)
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def _unknown(address: Address, field: str, asked: str, choices: Collection[str]) -> InvalidData:
    what = {"config": "configuration", "split": "split"}[field]
    return InvalidData(
        f"`{address.uri}` has no {what} `{asked}`: it has {', '.join(choices)}",
        field=address.sibling(field),
        advice="set it to one of them",
    )
