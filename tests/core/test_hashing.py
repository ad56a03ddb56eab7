"""Digests of files: what is stored, when it is valid, and that a damaged store is harmless."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zerocon.core import hashing
from zerocon.core.hashing import RememberedDigests, file_digest

LATER = 3 * 10**9


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in order."""
    names: list[str] = []

    def noting(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(hashing, "file_digest", noting)
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock three seconds ahead, so that new files are old enough to be stored."""
    clock = time.time_ns
    monkeypatch.setattr(hashing.time, "time_ns", lambda: clock() + LATER)


def written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def test_a_file_is_read_once_even_by_the_next_process(
    tmp_path: Path, hashed: list[str], later: None
) -> None:
    file, store = written(tmp_path / "a", b"a"), tmp_path / "cache" / "digests"
    first = RememberedDigests(store)
    assert first(file) == first(file) == RememberedDigests(store)(file) == file_digest(file)
    assert hashed == ["a"]


def test_a_file_that_changed_just_now_is_read_again(tmp_path: Path, hashed: list[str]) -> None:
    file = written(tmp_path / "a", b"a")
    digests = RememberedDigests(tmp_path / "digests")
    digests(file)
    digests(file)
    assert hashed == ["a", "a"]
    assert not (tmp_path / "digests").exists()


def restored(file: Path, status: os.stat_result) -> None:
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def overwrite(file: Path) -> None:
    file.write_bytes(b"b")


def overwrite_and_set_back_the_time(file: Path) -> None:
    status = file.stat()
    file.write_bytes(b"b")
    restored(file, status)


def replace_and_set_back_the_time(file: Path) -> None:
    status = file.stat()
    written(file.with_suffix(".new"), b"b").replace(file)
    restored(file, status)


@pytest.mark.parametrize(
    "change", [overwrite, overwrite_and_set_back_the_time, replace_and_set_back_the_time]
)
def test_a_changed_file_has_another_digest(
    tmp_path: Path, later: None, change: Callable[[Path], None]
) -> None:
    file, store = written(tmp_path / "a", b"a"), tmp_path / "digests"
    before = RememberedDigests(store)(file)
    time.sleep(0.02)  # a tick of the file system's clock
    change(file)
    assert RememberedDigests(store)(file) == file_digest(file) != before


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a", b"a")

    def slow(path: Path) -> str:
        digest = file_digest(path)
        path.write_bytes(b"bb")
        return digest

    monkeypatch.setattr(hashing, "file_digest", slow)
    digests = RememberedDigests(tmp_path / "digests")
    digests(file)
    monkeypatch.setattr(hashing, "file_digest", file_digest)
    assert digests(file) == file_digest(file)


def damaged_line(store: Path) -> None:
    store.write_bytes(store.read_bytes().replace(b'", ', b'x", ', 1))


def cut_short(store: Path) -> None:
    store.write_bytes(store.read_bytes()[:-30])


def garbage(store: Path) -> None:
    store.write_bytes(os.urandom(5000))


def a_wrong_schema(store: Path) -> None:
    import zlib

    lines = [b"[1]", b"{}", b'["a", 1, 2, 3, 4, 5, 6, 7, 8]', b"null", b'"a"']
    store.write_bytes(b"\n".join(b"%08x %b" % (zlib.crc32(x), x) for x in lines))


def a_folder(store: Path) -> None:
    store.unlink()
    store.mkdir()


def a_pipe(store: Path) -> None:
    store.unlink()
    os.mkfifo(store)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "damage", [damaged_line, cut_short, garbage, a_wrong_schema, a_folder, a_pipe]
)
def test_a_damaged_store_does_no_harm(
    tmp_path: Path, later: None, damage: Callable[[Path], None]
) -> None:
    file, store = written(tmp_path / "a", b"a"), tmp_path / "digests"
    RememberedDigests(store)(file)
    damage(store)
    for _ in range(2):
        assert RememberedDigests(store)(file) == file_digest(file)


def test_an_incomplete_line_of_a_killed_process_hides_no_other_line(
    tmp_path: Path, hashed: list[str], later: None
) -> None:
    first, second = written(tmp_path / "a", b"a"), written(tmp_path / "b", b"b")
    store = tmp_path / "digests"
    RememberedDigests(store)(first)
    with store.open("r+b") as file:
        file.truncate(store.stat().st_size - 20)
    RememberedDigests(store)(second)
    hashed.clear()
    again = RememberedDigests(store)
    again(first)
    again(second)
    assert hashed == ["a"]


def test_the_store_is_bounded(tmp_path: Path, hashed: list[str], later: None) -> None:
    files = [written(tmp_path / f"{i:03d}", b"%d" % i) for i in range(200)]
    store = tmp_path / "digests"
    digests = RememberedDigests(store, most_bytes=8000)
    for file in files:
        digests(file)
        assert store.stat().st_size <= 8000
    hashed.clear()
    again = RememberedDigests(store, most_bytes=8000)
    newest_first = files[::-1]
    assert [again(file) for file in newest_first] == [file_digest(file) for file in newest_first]
    assert len(hashed) < 190  # the newest are still known
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_store_that_grew_elsewhere_is_read_from_its_end(
    tmp_path: Path, hashed: list[str], later: None
) -> None:
    files = [written(tmp_path / f"{i:03d}", b"%d" % i) for i in range(60)]
    store = tmp_path / "digests"
    large = RememberedDigests(store)
    for file in files:
        large(file)
    hashed.clear()
    small = RememberedDigests(store, most_bytes=2000)
    small(files[-1])
    assert hashed == []
    small(files[0])
    assert hashed == ["000"]


def test_an_unwritable_folder_only_costs_time(tmp_path: Path, later: None) -> None:
    file = written(tmp_path / "a", b"a")
    (tmp_path / "file").write_text("")
    assert RememberedDigests(tmp_path / "file" / "digests")(file) == file_digest(file)


@pytest.mark.timeout(20)
def test_a_path_that_is_not_a_file_is_an_error_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none"):
        for hasher in (file_digest, RememberedDigests(tmp_path / "digests")):
            with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
                hasher(path)


def _hash_all(store: Path, files: list[Path], begun: Any) -> None:
    clock = time.time_ns
    hashing.time.time_ns = lambda: clock() + LATER  # pyright: ignore[reportAttributeAccessIssue]
    begun.set()
    while True:
        digests = RememberedDigests(store, most_bytes=20_000)
        for file in files:
            digests(file)


@pytest.mark.slow
def test_the_store_is_correct_after_many_writers_were_killed(tmp_path: Path) -> None:
    """All digests in the store are those of the files."""
    files = [written(tmp_path / f"{i:03d}", os.urandom(100)) for i in range(150)]
    store, context = tmp_path / "store" / "digests", multiprocessing.get_context("fork")
    for _ in range(3):
        begun = [context.Event() for _ in range(4)]
        workers = [context.Process(target=_hash_all, args=(store, files, e)) for e in begun]
        for worker in workers:
            worker.start()
        for event in begun:
            event.wait(20)
        time.sleep(0.15)
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
        digests = RememberedDigests(store, most_bytes=20_000)
        assert [digests(file) for file in files] == [file_digest(file) for file in files]
        assert store.stat().st_size <= 40_000


def test_what_was_hashed_again_counts_as_new(
    tmp_path: Path, hashed: list[str], later: None
) -> None:
    """A store in which `a` comes first and last is halved: `a` is of the newer half."""
    a, b, c = (written(tmp_path / name, name.encode()) for name in "abc")
    store = tmp_path / "digests"
    first = RememberedDigests(store)
    first(a)
    first(b)
    a.write_bytes(b"other")
    first(a)
    size = store.stat().st_size
    full = RememberedDigests(store, most_bytes=size)
    full(c)  # one too many
    assert store.stat().st_size < size
    hashed.clear()
    left = RememberedDigests(store)
    left(a)
    left(c)
    assert hashed == []
    left(b)
    assert hashed == ["b"]
