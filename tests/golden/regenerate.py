"""Writes the expected files anew (`make golden`): review them in the diff."""

from __future__ import annotations

from tests.golden import job_lives
from tests.golden.cases import CASES, expected


def main() -> None:
    for case in CASES:
        folder = case / "expected"
        folder.mkdir(exist_ok=True)
        files = expected(case)
        for stale in set(folder.iterdir()) - {folder / name for name in files}:
            stale.unlink()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    job_lives.FOLDER.mkdir(exist_ok=True)
    for stale in job_lives.FOLDER.iterdir():
        stale.unlink()
    for name in job_lives.LIVES:
        (job_lives.FOLDER / f"{name}.yaml").write_text(job_lives.told(name), encoding="utf-8")


if __name__ == "__main__":
    main()
