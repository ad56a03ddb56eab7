from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from PIL import Image

from zerocon.core.records import Record, RecordError
from zerocon.ledger import records as module
from zerocon.ledger.records import (
    DuplicateError,
    RecordLog,
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
def test_a_torn_last_line_is_cut_off(tmp_path: Path, kept: int) -> None:
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


def test_no_case_twice(tmp_path: Path) -> None:
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


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with RecordLog(tmp_path) as log:
        log.append(ok("a"))
        monkeypatch.setattr(module.os, "write", lambda file, data: write(file, data[:9]))
        with pytest.raises(RecordError, match="disk full"):
            log.append(ok("b"))
        monkeypatch.undo()
        log.append(ok("b"))
    assert [record.case for record in read_records(tmp_path)] == ["a", "b"]


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from zerocon.ledger.records import DuplicateError, Record, RecordLog
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
