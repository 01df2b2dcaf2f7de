"""`s3://` addresses: an object or everything below a prefix, in AWS or a compatible store.

Retries are botocore's and s3fs's own: both repeat what is transient, neither repeats a 403 or a 404.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import s3fs
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    NoCredentialsError,
    PartialCredentialsError,
)

from finetune_trainer.checksums import text_sha256
from finetune_trainer.errors import Internal
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.source import Notify, Version
from finetune_trainer.workspace import is_full

_CREDENTIALS_ADVICE: Final = (
    "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL, AWS_REGION) in secretRef"
)
_ATTEMPTS: Final = 5


def connect(address: Address) -> Any:
    """A file system with the address's own credentials; without a Secret, those of the process's environment."""
    endpoint = address.credential("AWS_ENDPOINT_URL")
    region = address.credential("AWS_REGION")
    settings: dict[str, Any] = {"retries": {"max_attempts": _ATTEMPTS, "mode": "standard"}}
    if endpoint:  # compatible stores know neither bucket host names nor the newest checksums
        settings["s3"] = {"addressing_style": "path"}
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
    return s3fs.S3FileSystem(
        key=address.credential("AWS_ACCESS_KEY_ID"),
        secret=address.credential("AWS_SECRET_ACCESS_KEY"),
        token=address.credential("AWS_SESSION_TOKEN"),
        endpoint_url=endpoint,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs=settings,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


@contextmanager
def explaining(address: Address) -> Iterator[None]:
    """Turns the store's errors into ours, naming the field of the spec."""
    try:
        yield
    except FileNotFoundError as error:
        raise address.missing("does not exist", "check the bucket and the key") from error
    except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
        raise address.denied(_CREDENTIALS_ADVICE) from error
    except (BotoCoreError, OSError) as error:
        if is_full(error):
            raise
        raise Internal(
            f"cannot reach {address.kind} `{address.uri}`: {error}",
            field=address.field,
            advice="check AWS_ENDPOINT_URL and the network",
        ) from error


class S3:
    def version(self, address: Address) -> Version:
        with explaining(address):
            objects = _objects(connect(address), address)
        return Version(text_sha256("".join(f"{key} {info['ETag']} {info['size']}\n" for key, info in objects.items())))

    def download(self, address: Address, version: Version, into: Path, notify: Notify) -> Path:
        del version  # the objects are read as they are now
        root = address.rest
        with explaining(address):
            store = connect(address)
            objects = _objects(store, address)
            for count, (key, info) in enumerate(objects.items(), start=1):
                notify(f"downloading {address.uri}: file {count} of {len(objects)}, {info['size']:,} bytes")
                target = into / (Path(key).name if key == root else key.removeprefix(root + "/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(key, str(target))
        return into / Path(root).name if list(objects) == [root] else into


def _objects(store: Any, address: Address) -> dict[str, dict[str, Any]]:
    """The named object, or all below the named prefix, by `bucket/key`. Raises FileNotFoundError for none."""
    root = address.rest
    found = store.find(root, detail=True)
    objects = {key: info for key, info in sorted(found.items()) if info["type"] == "file"}
    if not objects:
        store.info(root.partition("/")[0])  # tells a missing bucket from an empty prefix
        raise FileNotFoundError(address.uri)
    return objects
