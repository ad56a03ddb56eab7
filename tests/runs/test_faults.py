"""Runs that are killed, shared, or out of disk end with what an undisturbed run has.

A toy stands for the models: its pictures depend on their whole batch, as a model's last bits
do, so that a batch that is cut differently after a kill would show.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.shards import Shard
from zerocon.ledger.claims import Chunk, Claims, chunks_left
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import Record, RecordLog, read_records, save_image
from zerocon.ledger.status import status_of
from zerocon.runs import code, executors, processes, records, results, runner
from zerocon.runs.crews import Desk, Local

FORK = get_context("fork")
COUNT = 23
PAUSE = 0.004  # seconds, at most, before each thing that a toy does


class ToyDataset:
    name, fingerprint = "toy", "toy"

    def __init__(self, count: int) -> None:
        self.ids = [f"case {i}" for i in range(count)]

    def load(self, case_id: str) -> Case:
        return Case(case_id, torch.zeros(3, 8, 8), "a", "b")


class ToyEditor:
    """Writes down what it works on; dies of cases called so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, case_ids: Sequence[str]) -> Sequence[str]:
        return case_ids

    def compute(self, case_ids: Sequence[str]) -> Sequence[str]:
        nap()
        with (self.directory.parent / "worked").open("a") as file:
            file.write("".join(f"{case_id}\n" for case_id in case_ids))
        for case_id in case_ids:
            deadly = self.directory.parent / f"{case_id} is deadly"
            if deadly.exists():
                if deadly.read_text() == "once":
                    deadly.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return case_ids

    def store(self, case_ids: Sequence[str]) -> Iterator[tuple[Record, dict[str, Image.Image]]]:
        for case_id in case_ids:
            nap()
            digest = hashlib.sha256(repr((case_id, tuple(case_ids))).encode()).digest()
            pixels = np.resize(np.frombuffer(digest, np.uint8), (8, 8, 3))
            image, sha256 = save_image(self.directory, case_id, Image.fromarray(pixels))
            metrics = {"psnr": float(pixels.mean())}
            yield Record(case=case_id, status="ok", image=image, sha256=sha256, metrics=metrics), {}

    def spent(self) -> dict[str, Any]:
        return {"unet_forward": {"inversion": 1}}


def nap() -> None:
    time.sleep(random.random() * PAUSE)


def toy_origin(count: int) -> Origin:
    column = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}
    backbone = {"name": "toy", "fingerprint": "toy"}
    provenance = {"code": code.code_digest(), "git": {"revision": None}}
    ids = ToyDataset(count).ids
    return Origin("toy", ids, [column], "masked", backbone, backbone, {}, False, provenance)


class ToyCrew(Local):
    count = COUNT

    def __init__(self, settings: RunSettings) -> None:
        self.dataset: Any = ToyDataset(self.count)
        self.origin = toy_origin(self.count)
        self._editor: Any = ToyEditor(settings.directory)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runner, results):
        if hasattr(module, "CONSOLE"):
            monkeypatch.setattr(module, "CONSOLE", Console(file=io.StringIO()))
    monkeypatch.setattr(runner, "hire", ToyCrew)


def settings_at(root: Path, *more: str) -> RunSettings:
    root.mkdir(parents=True, exist_ok=True)
    return compose_settings([f"runner.root={root}", "runner.batch_size=4", *more])


def in_child(settings: RunSettings) -> Any:
    process = FORK.Process(target=_execute, args=(settings,))
    process.start()
    return process


def _execute(settings: RunSettings) -> None:
    random.seed(os.getpid())
    runner.execute(settings)


def content(directory: Path) -> dict[str, Any]:
    """All that has to be the same: the records but for their order, and the pictures' bytes.

    Not the half of a picture that a kill has just left: it is swept away when it is older.
    """
    lines = {r.case: (r.status, r.sha256, dict(r.metrics)) for r in read_records(directory)}
    pictures = {p.name: p.read_bytes() for p in (directory / "images").glob("case*.png")}
    return {"records": lines, "pictures": pictures}


def lines_of(directory: Path) -> int:
    file = directory / "records.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def worked_on(root: Path) -> int:
    file = root / "worked"
    return len(file.read_text().splitlines()) if file.exists() else 0


def undisturbed(root: Path, *more: str) -> dict[str, Any]:
    settings = settings_at(root, *more)
    runner.execute(settings)
    assert worked_on(root) == ToyCrew.count
    return content(settings.directory)


def wait_for_work(root: Path, amount: int, child: Any) -> None:
    """Until it worked on that many cases more, or has ended."""
    before = worked_on(root)
    while worked_on(root) < before + amount and child.is_alive():
        time.sleep(0.001)


def survives(tmp_path: Path, kills: int, batch: int) -> None:
    expected = undisturbed(tmp_path / "whole", f"runner.batch_size={batch}")
    settings = settings_at(tmp_path / "killed", f"runner.batch_size={batch}")
    draw, recorded = random.Random(1), set[int]()
    for _ in range(kills):
        child = in_child(settings)
        wait_for_work(tmp_path / "killed", draw.randrange(4 * batch), child)
        time.sleep(draw.random() * PAUSE * 4)
        child.kill()
        child.join()
        recorded.add(lines_of(settings.directory))
    runner.execute(settings)
    assert recorded - {0, ToyCrew.count}  # it was killed on its way
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == ToyCrew.count
    # Two batches are in flight at most: one edited, one being stored.
    assert worked_on(tmp_path / "killed") <= ToyCrew.count + kills * 2 * batch
    assert (settings.directory / "gallery.html").exists()


def test_killed_five_times_it_ends_the_same(tmp_path: Path) -> None:
    survives(tmp_path, 5, batch=4)


@pytest.mark.slow
def test_killed_a_hundred_times_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyCrew, "count", 100)
    survives(tmp_path, 100, batch=1)


def test_two_processes_share_a_run(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "whole")
    settings = settings_at(tmp_path / "shared")
    children = [in_child(settings), in_child(settings)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert content(settings.directory) == expected
    assert worked_on(tmp_path / "shared") == lines_of(settings.directory) == COUNT


def test_what_a_killed_process_had_claimed_is_done_by_the_other(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "whole")
    settings = settings_at(tmp_path / "shared")
    victim, other = in_child(settings), in_child(settings)
    time.sleep(0.05)
    victim.kill()
    victim.join()
    other.join()
    assert other.exitcode == 0
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT


def test_shards_meet_in_one_directory(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "whole")["records"]
    outcomes = []
    for number in (3, 1, 2):
        settings = settings_at(tmp_path / "shards", f"runner.shard={number}/3")
        outcomes.append(runner.execute(settings).done)
        state = status_of(settings.directory).state
        assert state == ("done" if number == 2 else "partial")
        assert (settings.directory / "gallery.html").exists() == (number == 2)
    assert outcomes == [8, 15, COUNT]
    assert content(settings.directory)["records"].keys() == expected.keys()
    assert worked_on(tmp_path / "shards") == COUNT


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"runner\.shard"):
        Shard.read(text)


def test_shards_are_all_cases_once() -> None:
    ids = [str(i) for i in range(29)]
    assert [i for n in range(1, 9) for i in Shard(n, 8).of(ids)] == ids


def test_a_full_disk_ends_the_run_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole")
    settings = settings_at(tmp_path / "full")
    write, written = records.write_atomic, []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(records, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        runner.execute(settings)
    assert lines_of(settings.directory) == 8  # whole batches, each picture there
    monkeypatch.setattr(records, "write_atomic", write)
    runner.execute(settings)
    assert content(settings.directory) == expected


def test_claims_keep_other_processes_out(tmp_path: Path) -> None:
    def taken(start: int, stop: int) -> bool:
        with FORK.Pool(1) as pool:
            return pool.apply(_take, (tmp_path, start, stop))

    with Claims(tmp_path) as claims:
        assert claims.take(0, 4)
        assert not taken(0, 4)
        assert not taken(3, 7)
        assert taken(4, 8)
        claims.release(0, 4)
        assert taken(0, 4)


def _take(directory: Path, start: int, stop: int) -> bool:
    with Claims(directory) as claims:
        return claims.take(start, stop)


def test_chunks_are_cut_at_the_same_places_whatever_is_done(tmp_path: Path) -> None:
    ids = list("abcdefghij")
    with RecordLog(tmp_path) as log, Claims(tmp_path) as claims:
        log.append_all([Record(case=c, status="failed", error="x") for c in "bcefgh"])
        found = list(chunks_left(log, claims, ids, range(10), 4))
    assert found == [Chunk(0, 4, ("a", "d")), Chunk(8, 10, ("i", "j"))]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes with toy editors."""

    def prepared(settings: RunSettings, count: int) -> tuple[Any, Any]:
        return ToyEditor(settings.directory), processes.Ready(toy_origin(COUNT), 8)

    monkeypatch.setattr(processes, "get_context", lambda _: FORK)
    monkeypatch.setattr(processes, "prepared", prepared)
    monkeypatch.setattr(runner, "hire", executors.hire)


def by_processes(root: Path) -> RunSettings:
    settings = settings_at(root, "runner.executor=processes", "runner.workers=3")
    object.__setattr__(settings, "dataset", lambda side: ToyDataset(COUNT))
    return settings


@pytest.mark.usefixtures("workers")
def test_processes_record_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "hire", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "hire", executors.hire)
    settings = by_processes(tmp_path / "many")
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (COUNT, 0)
    assert content(settings.directory) == expected
    assert worked_on(tmp_path / "many") == COUNT


@pytest.mark.usefixtures("workers")
def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "hire", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "hire", executors.hire)
    settings = by_processes(tmp_path / "many")
    (tmp_path / "many" / "case 9 is deadly").write_text("once")
    runner.execute(settings)
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT


@pytest.mark.usefixtures("workers")
def test_a_case_that_kills_thrice_is_a_failed_record(tmp_path: Path) -> None:
    settings = by_processes(tmp_path)
    (tmp_path / "case 9 is deadly").write_text("always")
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (COUNT, 1)
    (failed,) = [r for r in read_records(settings.directory) if not r.ok]
    assert failed.case == "case 9"
    assert "died 3 times (exit status -9)" in str(failed.error)
    assert status_of(settings.directory).state == "failed"


@pytest.mark.usefixtures("workers")
def test_what_a_worker_cant_load_is_raised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: RunSettings, count: int) -> Any:
        raise ConfigError("backbone.path is wrong")

    monkeypatch.setattr(processes, "prepared", broken)
    with pytest.raises(ConfigError, match=r"backbone\.path"):
        runner.execute(by_processes(tmp_path))


@pytest.mark.usefixtures("workers")
def test_workers_that_always_die_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(settings: RunSettings, count: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(processes, "prepared", dying)
    with pytest.raises(processes.WorkerError, match="exit status -9"):
        runner.execute(by_processes(tmp_path))


def test_ray_that_is_not_there_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "hire", executors.hire)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"zerocon\[ray\]"):
        runner.execute(settings_at(tmp_path, "runner.executor=ray"))


def strikes_of(desk: Desk, dies: Callable[[Chunk], bool]) -> list[tuple[str, ...]]:
    """Every chunk that was handed out, when those that `dies` says come back dead."""
    handed: list[tuple[str, ...]] = []
    while (chunk := desk.next()) is not None:
        handed.append(chunk.case_ids)
        if dies(chunk):
            desk.died(chunk, "killed")
        else:
            desk.finished(chunk, [])
    return handed


def test_the_third_strike_is_the_guilty_case_alone() -> None:
    recorded: list[str] = []
    desk = Desk(
        iter([Chunk(0, 3, ("a", "b", "c"))]),
        lambda chunk, done: recorded.extend(r.case for r, _ in done),
    )
    handed = strikes_of(desk, lambda chunk: "b" in chunk.case_ids)
    assert handed == [("a", "b", "c"), ("a", "b", "c"), ("a",), ("b",), ("c",)]
    assert recorded == ["b"]


def test_other_code_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_at(tmp_path)
    directory = settings.directory
    runner.execute(settings)
    whole = (directory / "records.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "records.jsonl").write_bytes(b"".join(whole[:8]))
    monkeypatch.setattr(results, "code_digest", lambda: "changed")
    with pytest.raises(ConfigError, match="other code"):
        runner.execute(settings_at(tmp_path, "runner.on_code_change=refuse"))
    runner.execute(settings)
    noted = [r for r in read_records(directory) if any(results.LATER in n for n in r.notes)]
    assert len(noted) == COUNT - 8
    told = Console(file=io.StringIO(), width=200)
    results.report(directory, told, per_type=False)
    printed = told.file.getvalue()  # type: ignore[attr-defined]
    assert f"{COUNT - 8} of the cases were edited by other code" in printed
    monkeypatch.setattr(code, "code_digest", lambda: "changed")
    again = runner.execute(settings_at(tmp_path, "runner.on_code_change=rerun"))
    assert not any(r.notes for r in read_records(again.directory))
    assert len(list(tmp_path.glob(f"{directory.name}.*"))) == 1
