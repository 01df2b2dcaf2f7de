"""Object storage, against a real server (versitygw) where one has been built; `make cluster` builds it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_trainer.errors import Internal, InvalidData, NotFound
from finetune_trainer.training import manifest
from finetune_trainer.training.manifest import Facts
from finetune_trainer.training.resume import CheckpointSource
from finetune_trainer.uris import Address, fetch
from finetune_trainer.uris.folder import open_folder
from finetune_trainer.uris.transfer import download, is_complete, remove_all, upload
from finetune_trainer.workspace import Paths

KEY, SECRET = "tester", "tester-secret"
BUILDS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "finetune-operator" / "builds"


def quiet(_: str) -> None:
    return None


@dataclass(frozen=True)
class Store:
    root: Path
    secret: Path

    def address(self, uri: str, secret: Path | None = None) -> Address:
        return Address(uri, "spec.output.uri", "output", secret or self.secret)


def program() -> str | None:
    built = sorted(BUILDS.glob("versitygw-*"))
    return shutil.which("versitygw") or (str(built[-1]) if built else None)


def write_secret(folder: Path, port: int, secret: str = SECRET) -> Path:
    folder.mkdir()
    values = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
    }
    for name, value in values.items():
        (folder / name).write_text(value)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    gateway = program()
    if gateway is None:
        pytest.skip("versitygw has not been built (make cluster builds it)")
    root = tmp_path_factory.mktemp("s3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (root / "data" / "bucket").mkdir(parents=True)
    keys = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    command = [gateway, "--port", f"127.0.0.1:{port}", "posix", "--nometa", str(root / "data")]
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
    try:
        _wait_for(port, root / "log")
        yield Store(root / "data", write_secret(root / "secret", port))
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # the server says by no other sign that it listens
    pytest.fail(f"versitygw does not listen: {log.read_text()[-500:]}")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(os.urandom(12 << 20))
    (folder / "sub" / "b.txt").write_text("b")
    return folder


def test_a_folder_comes_back_from_the_store_as_it_was(
    store: Store, paths: Paths, artifact: Path, tmp_path: Path
) -> None:
    there = open_folder(store.address("s3://bucket/jobs/one"), paths)
    there.probe()
    sums = upload(artifact, there, quiet)
    assert is_complete(there, sums)
    assert sorted(there.sizes()) == ["SHA256SUMS", "a.bin", "sub/b.txt"]
    download(there, tmp_path / "back", quiet)
    assert (tmp_path / "back" / "a.bin").read_bytes() == (artifact / "a.bin").read_bytes()
    remove_all(there)
    assert there.sizes() == {}


def test_an_object_and_a_prefix_are_fetched_once(store: Store, paths: Paths, said: list[str]) -> None:
    (store.root / "bucket" / "data").mkdir()
    (store.root / "bucket" / "data" / "rows.jsonl").write_text('{"text": "a"}\n')
    one = fetch(store.address("s3://bucket/data/rows.jsonl"), paths, paths.scratch / "one", said.append)
    assert one.path.name == "rows.jsonl"
    all_ = fetch(store.address("s3://bucket/data"), paths, paths.scratch / "all", said.append)
    assert (all_.path / "rows.jsonl").read_text() == one.path.read_text()
    count = len(said)
    fetch(store.address("s3://bucket/data"), paths, paths.scratch / "all", said.append)
    assert len(said) == count


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x", "s3://bucket/no/such/key"])
def test_what_the_store_does_not_have_is_not_found(store: Store, paths: Paths, uri: str) -> None:
    with pytest.raises(NotFound, match="does not exist") as error:
        fetch(store.address(uri), paths, paths.scratch / "x", quiet)
    assert error.value.field == "spec.output.uri"


def test_a_missing_bucket_is_found_before_anything_is_written(store: Store, paths: Paths) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        open_folder(store.address("s3://no-such-bucket/x"), paths).probe()


def test_wrong_credentials_are_denied_with_advice(store: Store, paths: Paths, tmp_path: Path) -> None:
    port = int((store.secret / "AWS_ENDPOINT_URL").read_text().rpartition(":")[2])
    wrong = write_secret(tmp_path / "wrong", port, secret="guessed")  # noqa: S106
    with pytest.raises(NotFound, match="denied") as error:
        open_folder(store.address("s3://bucket/x", wrong), paths).probe()
    assert "AWS_SECRET_ACCESS_KEY" in (error.value.advice or "")


@pytest.mark.slow  # the client tries five times
def test_a_store_that_is_not_there_is_not_the_users_fault(store: Store, paths: Paths, tmp_path: Path) -> None:
    nowhere = write_secret(tmp_path / "nowhere", 9)
    with pytest.raises(Internal, match="cannot reach"):
        open_folder(store.address("s3://bucket/x", nowhere), paths).probe()


def test_an_altered_object_is_refused(store: Store, paths: Paths, artifact: Path, tmp_path: Path) -> None:
    there = open_folder(store.address("s3://bucket/jobs/two"), paths)
    upload(artifact, there, quiet)
    (store.root / "bucket" / "jobs" / "two" / "sub" / "b.txt").write_text("c")
    with pytest.raises(InvalidData, match=r"b\.txt is not what"):
        download(there, tmp_path / "back", quiet)


def test_another_jobs_checkpoints_are_found_in_a_bucket_and_only_read(
    store: Store, paths: Paths, tmp_path: Path
) -> None:
    address = store.address("s3://bucket/jobs/first/checkpoints")
    folder = open_folder(address, paths)
    for step in (4, 12):
        made = tmp_path / f"checkpoint-{step}"
        (made / "deep").mkdir(parents=True)
        (made / "deep" / "weights").write_bytes(b"w" * step)
        manifest.seal(made, Facts(step=step, world_size=1, global_batch=4, run="run", rng=()))
        for name in ("deep/weights", manifest.MANIFEST):
            folder.put(made / name, f"checkpoint-{step}/{name}")
    before = folder.sizes()
    source = CheckpointSource(folder, address)

    found = source.newest(quiet)
    copy = source.fetch(found, tmp_path / "copy")
    older = source.newest(quiet, torn={found.prefix})

    assert copy.facts.origin == "s3://bucket/jobs/first/checkpoints/checkpoint-12"
    assert (tmp_path / "copy" / "deep" / "weights").read_bytes() == b"w" * 12
    assert older.manifest.facts.step == 4
    assert folder.sizes() == before
    empty = store.address("s3://bucket/jobs/second")
    with pytest.raises(NotFound):
        CheckpointSource(open_folder(empty, paths), empty).newest(quiet)
