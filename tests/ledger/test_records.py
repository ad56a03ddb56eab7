"""Records on disk: complete lines, one owner, and messages for errors of the disk."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zerocon.core.records import Record, RecordError
from zerocon.ledger import locks
from zerocon.ledger import records as module
from zerocon.ledger.records import (
    DuplicateError,
    RecordLog,
    done_cases,
    file_name,
    read_records,
    save_image,
    verify_checksums,
    verify_images,
)


def ok(case: str, **more: object) -> Record:
    return Record(case=case, status="ok", **more)  # type: ignore[arg-type]


def failed(case: str) -> Record:
    return Record(case=case, status="failed", error="the mask is empty")


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    metrics = {"psnr": 21.5, "background": math.inf, "low": -math.inf, "blend": math.nan}
    record = ok(
        "a/b", metrics=metrics, seconds=1.5, notes=("was gray",), target_prompt='a "blå"\n\u2028'
    )
    with RecordLog(tmp_path) as log:
        log.append(record)
    line = (tmp_path / "records.jsonl").read_text()
    assert json.loads(line)["metrics"] == {
        "psnr": 21.5,
        "background": "inf",
        "low": "-inf",
        "blend": None,
    }
    (read,) = read_records(tmp_path)
    assert math.isnan(read.metrics["blend"])
    assert {**read.metrics, "blend": 0} == {**metrics, "blend": 0}
    assert (read.target_prompt, read.notes) == (record.target_prompt, record.notes)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_an_incomplete_last_line_is_dropped(tmp_path: Path, kept: int) -> None:
    with RecordLog(tmp_path) as log:
        log.append(ok("a"))
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(ok("b").to_line()[:kept])
    assert [record.case for record in read_records(tmp_path)] == ["a"]
    with RecordLog(tmp_path) as log:
        assert len(log.repairs) == 1
        assert "line 2" in log.repairs[0]
        assert log.done_ids() == {"a"}
        log.append(ok("b"))
    with RecordLog(tmp_path) as log:
        assert log.repairs == []
        assert log.done_ids() == {"a", "b"}


def spoilt(**changes: object) -> bytes:
    return json.dumps(json.loads(ok("b").to_line()) | changes).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{\n", "Expecting"),
        (b"[]\n", "not a JSON object"),
        (b"\n", "Expecting"),
        (spoilt(schema=2), "schema"),
        (spoilt(status="fine"), "status"),
        (spoilt(status="failed"), "error"),
        (spoilt(seconds="1"), "seconds"),
        (spoilt(seconds=True), "seconds"),
        (spoilt(extra=1), "extra"),
        (b'{"schema": 7, "id": "b"}\n', "schema is 7; this version reads 1"),
        (spoilt(image="images/a\0.png", sha256="0"), "leaves"),
        (spoilt(metrics={"psnr": "high"}), "psnr"),
        (spoilt(metrics={"psnr": math.nan}), "NaN"),
        (spoilt(image="../../secret.png", sha256="0"), "leaves"),
        (spoilt(image="images/b.png"), "together"),
        (b'{"case": "\xff"}\n', "utf-8"),
    ],
)
def test_anything_worse_names_file_and_line(tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "records.jsonl").write_bytes(ok("a").to_line() + line)
    with pytest.raises(RecordError, match=rf"records\.jsonl, line 2: .*{says}"):
        RecordLog(tmp_path)
    with pytest.raises(RecordError, match="line 2"):
        read_records(tmp_path)


def test_a_case_is_not_recorded_twice(tmp_path: Path) -> None:
    with RecordLog(tmp_path) as log, RecordLog(tmp_path) as other:
        log.append(ok("a"))
        with pytest.raises(DuplicateError, match="'a'"):
            log.append(ok("a"))
        with pytest.raises(DuplicateError, match="'a'"):
            other.append(failed("a"))
        assert other.done_ids() == {"a"}
    assert len((tmp_path / "records.jsonl").read_bytes().splitlines()) == 1


def test_failed_cases_are_tried_again_once_a_run(tmp_path: Path) -> None:
    with RecordLog(tmp_path) as log:
        log.append(failed("a"))
        assert log.done_ids() == {"a"}
        with pytest.raises(DuplicateError):
            log.append(ok("a"))
    with RecordLog(tmp_path) as log:
        assert log.done_ids() == frozenset()
        log.append(ok("a"))
        assert log.done_ids() == {"a"}
    assert [record.status for record in read_records(tmp_path)] == ["ok"]


def test_failed_cases_can_be_left_alone(tmp_path: Path) -> None:
    with RecordLog(tmp_path) as log:
        log.append(failed("a"))
    with RecordLog(tmp_path, retry_failed=False) as log:
        assert log.done_ids() == {"a"}
        with pytest.raises(DuplicateError):
            log.append(ok("a"))


def with_image(root: Path, case: str) -> Record:
    image, sha256 = save_image(root, case, Image.new("RGB", (8, 8), "red"))
    return ok(case, image=image, sha256=sha256)


def test_a_lost_picture_is_made_again(tmp_path: Path) -> None:
    with RecordLog(tmp_path) as log:
        for case in ("kept", "lost", "torn"):
            log.append(with_image(tmp_path, case))
    (tmp_path / "images/lost.png").unlink()
    os.truncate(tmp_path / "images/torn.png", 40)
    with RecordLog(tmp_path) as log:
        assert log.done_ids() == {"kept"}
        assert len(log.repairs) == 2
        log.append(with_image(tmp_path, "lost"))
    assert verify_images(tmp_path, read_records(tmp_path)).keys() == {"torn"}


def test_checksums_find_a_changed_picture(tmp_path: Path) -> None:
    record = with_image(tmp_path, "a")
    assert verify_checksums(tmp_path, [record]) == {}
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "images/a.png")
    assert verify_images(tmp_path, [record]) == {}
    assert verify_checksums(tmp_path, [record]).keys() == {"a"}
    assert not list(tmp_path.rglob("*.partial"))


def test_file_names_stay_in_the_directory_and_differ() -> None:
    ids = ["..", "../a", "a/b", "a%2Fb", "a b", "é", "\ud800", "x" * 400, "x" * 400 + "y", "a\0b"]
    names = [file_name(name) for name in ids]
    assert len(set(names)) == len(ids)
    assert all("/" not in name and "\0" not in name and len(name) < 200 for name in names)


def test_a_full_disk_leaves_no_incomplete_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with RecordLog(tmp_path) as log:
        log.append(ok("a"))
        monkeypatch.setattr(module.os, "write", lambda file, data: write(file, data[:9]))
        with pytest.raises(RecordError, match="disk full"):
            log.append(ok("b"))
        monkeypatch.undo()
        log.append(ok("b"))
    assert [record.case for record in read_records(tmp_path)] == ["a", "b"]


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_reported_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with RecordLog(tmp_path) as log:
        log.append(ok("a"))
        monkeypatch.setattr(module.os, call, no_space)
        with pytest.raises(RecordError, match=r"records\.jsonl can't be written: No space left"):
            log.append(ok("b"))
        monkeypatch.undo()
    assert {record.case for record in read_records(tmp_path)} >= {"a"}


def blocked_by_a_folder(root: Path) -> Path:
    (root / "records.jsonl").mkdir()
    return root


def blocked_by_a_pipe(root: Path) -> Path:
    os.mkfifo(root / "records.jsonl")
    return root


def below_a_file(root: Path) -> Path:
    return Path("/dev/null/run")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (blocked_by_a_folder, r"records\.jsonl can't be opened for writing: Is a directory"),
        (blocked_by_a_pipe, r"records\.jsonl is no ordinary file; move it away"),
        (below_a_file, "/dev/null/run can't be made: Not a directory"),
    ],
)
def test_a_path_that_is_not_a_file_has_a_message(tmp_path: Path, place: Any, says: str) -> None:
    directory = place(tmp_path)
    with pytest.raises(RecordError, match=says):
        RecordLog(directory)
    with pytest.raises(RecordError, match=r"records\.jsonl"):
        read_records(directory)


def test_a_folder_where_a_picture_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "images" / "a.png").mkdir(parents=True)
    with pytest.raises(RecordError, match=r"images/a\.png can't be written: Is a directory"):
        save_image(tmp_path, "a", Image.new("RGB", (8, 8)))
    record = ok("a", image="images/a.png", sha256="0")
    assert verify_images(tmp_path, [record]) == {"a": "images/a.png is no ordinary file"}
    assert not list(tmp_path.rglob("*.partial"))


def test_progress_is_read_without_writing(tmp_path: Path) -> None:
    with RecordLog(tmp_path) as log:
        log.append_all([with_image(tmp_path, "a"), with_image(tmp_path, "lost"), failed("b")])
    (tmp_path / "images/lost.png").unlink()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    records = read_records(tmp_path)
    assert done_cases(tmp_path, records, retry_failed=True) == {"a"}
    assert done_cases(tmp_path, records, retry_failed=False) == {"a", "b"}
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_threads_share_one_log(tmp_path: Path) -> None:
    """Threads that add and read: no line is lost, incomplete or repeated."""
    with RecordLog(tmp_path) as log, ThreadPoolExecutor(4) as pool:

        def add(first: int) -> None:
            for number in range(first, first + 200, 4):
                log.append_all([failed(f"{number + i} {'x' * 500}") for i in range(4)])

        def look(_: int) -> None:
            for _ in range(200):
                log.refresh()

        for done in [pool.submit(add, i * 1000) for i in range(2)] + [
            pool.submit(look, i) for i in range(2)
        ]:
            done.result()
        assert log.repairs == []
    assert len(read_records(tmp_path)) == 400
    assert len((tmp_path / "records.jsonl").read_bytes().splitlines()) == 400


def test_another_processs_lock_is_reported_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "SAY_AFTER", 0.05)
    with RecordLog(tmp_path) as log, ThreadPoolExecutor(1) as pool, log.path.open() as foreign:
        fcntl.flock(foreign, fcntl.LOCK_EX)
        with caplog.at_level(logging.WARNING):
            waiting = pool.submit(log.append, ok("a"))
            time.sleep(0.3)
            assert not waiting.done()
            fcntl.flock(foreign, fcntl.LOCK_UN)
            waiting.result(5)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"{log.path} is locked by process {os.getpid()}; waiting until it is free"


def test_closing_ends_the_wait_for_a_foreign_lock(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, (tmp_path / "records.jsonl").open("w") as foreign:
        log = RecordLog(tmp_path)
        fcntl.flock(foreign, fcntl.LOCK_EX)
        waiting = pool.submit(log.append, ok("a"))
        time.sleep(0.05)
        log.close()
        with pytest.raises(RecordError, match="was closed"):
            waiting.result(5)


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from zerocon.core.records import Record
    from zerocon.ledger.records import DuplicateError, RecordLog
    root, prefix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    refused = 0
    with RecordLog(root) as log:
        for i in range(count):
            log.append(Record(case=f"{prefix}{i}", status="ok", notes=("x" * 20000,)))
            try:
                log.append(Record(case=f"shared{i}", status="ok"))
            except DuplicateError:
                refused += 1
    print(refused)
""")


def writer(root: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_to_one_file(tmp_path: Path) -> None:
    writers = [writer(tmp_path, prefix, 40) for prefix in ("a", "b")]
    refused = sum(int(process.communicate(timeout=40)[0]) for process in writers)
    assert [process.returncode for process in writers] == [0, 0]
    assert refused == 40
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines()
    assert len(lines) == len(read_records(tmp_path)) == 120


def test_killed_while_writing_nothing_is_lost(tmp_path: Path) -> None:
    process = writer(tmp_path, "a", 10**6)
    path = tmp_path / "records.jsonl"
    while not path.exists() or path.stat().st_size < 200_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with RecordLog(tmp_path) as log:
        done = log.done_ids()
        assert {f"a{i}" for i in range(9)} <= done
        log.append(ok("after"))
    assert {record.case for record in read_records(tmp_path)} == done | {"after"}
