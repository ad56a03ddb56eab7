"""Runs that are killed, shared, or out of disk space have the results of an undisturbed run.

A toy replaces the models. Its pictures depend on their whole batch, as a model's last bits do, so
a batch that is cut differently after a kill is noticed.
"""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.runs.toy_runs import (
    COUNT,
    FORK,
    PAUSE,
    ToyCrew,
    ToyDataset,
    ToyEditor,
    content,
    in_child,
    lines_of,
    settings_at,
    toy_origin,
    use_toys,
    wait_for_work,
    worked_on,
)
from zerocon.config.settings import RunSettings
from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.forward import Evaluations
from zerocon.core.records import Record, RecordError
from zerocon.core.shards import Shard
from zerocon.core.size import Size
from zerocon.ledger import code, records
from zerocon.ledger.claims import Chunk, Claims, chunks_left
from zerocon.ledger.records import RecordLog, read_records
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs import crews, processes, results, runner, worker
from zerocon.runs.crews import LocalCrew
from zerocon.runs.inputs import inputs_of
from zerocon.runs.work_queue import Task, WorkQueue
from zerocon.runs.worker import Editor, Loaded
from zerocon.trackers.base import NoTracker


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)


def undisturbed(root: Path, *more: str) -> dict[str, Any]:
    settings = settings_at(root, *more)
    runner.execute(settings)
    assert worked_on(root) == ToyCrew.count
    return content(settings.directory)


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
@pytest.mark.parametrize("batch", [1, 4])
def test_killed_fifty_times_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(ToyCrew, "count", 100)
    survives(tmp_path, 50, batch)


def killed_at(settings: RunSettings, number: int) -> bool:
    """Edit in another process that dies at its `number`-th write; return whether it came to that.

    A write is anything that changes the disk. Of data half is written before the process dies.
    """
    child = FORK.Process(target=_edit_until, args=(settings, number))
    child.start()
    child.join()
    return child.exitcode == -signal.SIGKILL


def _edit_until(settings: RunSettings, number: int) -> None:
    count = iter(range(1, 10**6))

    def deadly(action: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            if next(count) == number:
                if action is os.write:
                    action(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return action(*arguments, **more)

        return wrapped

    for owner, name in ((os, "write"), (os, "fsync"), (os, "ftruncate"), (Path, "replace")):
        setattr(owner, name, deadly(getattr(owner, name)))
    edit(settings)


def edit(settings: RunSettings) -> None:
    """A run without its reports."""
    crew = runner.start_crew(settings)
    run, inputs = RunDirectory(settings.directory), inputs_of(settings.config, settings.dataset)
    results.begin(run, results.with_inputs(crew.origin, inputs), inputs, settings.config)
    runner.work(settings, run, crew, NoTracker())
    crew.close()


@pytest.mark.slow
def test_killed_at_any_write_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyCrew, "count", 4)
    whole = settings_at(tmp_path / "whole", "runner.batch_size=2")
    edit(whole)
    expected = content(whole.directory)
    number, torn = 1, 0
    while True:
        settings = settings_at(tmp_path / str(number), "runner.batch_size=2")
        if not killed_at(settings, number):
            break
        torn += 0 < lines_of(settings.directory) < 4
        edit(settings)
        assert content(settings.directory) == expected, f"killed at write {number}"
        assert lines_of(settings.directory) == 4
        assert not list(settings.directory.rglob("*.partial"))
        number += 1
    assert number > 14  # four pictures and two batches of records, each in several steps
    assert torn > 1


def test_a_batch_recorded_in_part_is_computed_again_as_a_whole(tmp_path: Path) -> None:
    """As a kill in the middle of the write leaves it."""
    expected = undisturbed(tmp_path / "whole")
    settings = settings_at(tmp_path / "torn")
    edit(settings)
    file = settings.directory / "records.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:6]) + lines[6][:40])
    runner.execute(settings)
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT


def test_two_processes_share_a_run(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "whole")
    settings = settings_at(tmp_path / "shared")
    children = [in_child(settings), in_child(settings)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert content(settings.directory) == expected
    assert worked_on(tmp_path / "shared") == lines_of(settings.directory) == COUNT


def test_a_killed_processs_claims_are_taken_over(tmp_path: Path) -> None:
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


def test_shards_share_one_directory(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "whole")["records"]
    outcomes = []
    for number in (3, 1, 2):
        settings = settings_at(tmp_path / "shards", f"runner.shard={number}/3")
        outcomes.append(runner.execute(settings).done)
        state = RunDirectory(settings.directory).status().state
        assert state == ("done" if number == 2 else "partial")
        assert (settings.directory / "gallery.html").exists() == (number == 2)
    assert outcomes == [8, 15, COUNT]
    assert content(settings.directory)["records"].keys() == expected.keys()
    assert worked_on(tmp_path / "shards") == COUNT


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/2"])
def test_an_invalid_shard_is_refused(text: str) -> None:
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
    with pytest.raises(RecordError, match=r"images/case .*\.png can't be written: No space left"):
        runner.execute(settings)
    assert lines_of(settings.directory) == 8  # whole batches, each picture there
    monkeypatch.setattr(records, "write_atomic", write)
    runner.execute(settings)
    assert content(settings.directory) == expected


class Unreadable(ToyDataset):
    """`readable` of ten consecutive cases can be read."""

    readable = 0

    def load(self, case_id: str) -> Case:
        if int(case_id.split()[1]) % 10 >= self.readable:
            raise CaseError(f"there is no file {case_id}")
        return super().load(case_id)


def unreadable(monkeypatch: pytest.MonkeyPatch, count: int, readable: int) -> None:
    """Use real editors, on a dataset of mostly missing cases."""
    backbone: Any = SimpleNamespace(
        device=torch.device("cpu"), too_long=lambda _: False, evaluations=Evaluations()
    )

    class Crew(LocalCrew):
        def __init__(self, settings: RunSettings) -> None:
            self.dataset: Any = Unreadable(count)
            self.dataset.readable = readable
            self.origin = toy_origin(count)
            self._editor = Editor(settings, Loaded(backbone, self.dataset, []))

    monkeypatch.setattr(
        worker, "edit", lambda _, __, cases, *more: torch.zeros(len(cases), 3, 8, 8)
    )
    monkeypatch.setattr(worker, "score", lambda *_: {})
    monkeypatch.setattr(runner, "start_crew", Crew)


@pytest.mark.parametrize(("count", "batch", "readable"), [(400, 1, 0), (300, 10, 1)])
def test_cases_that_fail_at_once_are_recorded_while_others_are_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, batch: int, readable: int
) -> None:
    """Regression test of a race between the two threads that use the records."""
    unreadable(monkeypatch, count, readable)
    settings = settings_at(tmp_path, f"runner.batch_size={batch}")
    edit(settings)
    found = read_records(settings.directory)
    assert len(found) == lines_of(settings.directory) == count
    assert sum(record.ok for record in found) == count * readable // 10


def test_the_holder_of_the_remaining_cases_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Console(file=io.StringIO(), width=300)
    monkeypatch.setattr(runner, "CONSOLE", told)
    monkeypatch.setattr(runner, "SAY_AFTER", 0.3)
    settings = settings_at(tmp_path, "runner.batch_size=30")
    settings.directory.mkdir()
    ours, theirs = FORK.Pipe()
    holder = FORK.Process(target=_hold_all, args=(settings.directory, theirs))
    holder.start()
    ours.recv()
    waiting = FORK.Process(target=_let_go_after, args=(holder.pid, 1.5))
    waiting.start()
    edit(settings)
    holder.join()
    said = told.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("waiting for cases 1 to 23") == 1
    assert f"which process {holder.pid} on " in said
    assert lines_of(settings.directory) == COUNT


def _hold_all(directory: Path, line: Any) -> None:
    with Claims(directory) as claims:
        claims.take(0, 100)
        line.send(True)
        time.sleep(60)


def _let_go_after(pid: int, seconds: float) -> None:
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


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
    assert found == [
        Chunk(0, 4, ("a", "b", "c", "d"), frozenset("ad")),
        Chunk(8, 10, ("i", "j"), frozenset("ij")),
    ]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes with toy editors."""

    def prepared(settings: RunSettings, count: int) -> tuple[Any, Any]:
        return ToyEditor(settings.directory), processes.Ready(toy_origin(COUNT), Size.square(8))

    monkeypatch.setattr(processes, "get_context", lambda _: FORK)
    monkeypatch.setattr(processes, "prepared", prepared)
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)


def by_processes(root: Path) -> RunSettings:
    return settings_at(root, "runner.executor=processes", "runner.workers=3")


@pytest.mark.usefixtures("workers")
def test_processes_record_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "start_crew", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    settings = by_processes(tmp_path / "many")
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (COUNT, 0)
    assert content(settings.directory) == expected
    assert worked_on(tmp_path / "many") == COUNT


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("gpus", [3, 1])
def test_each_gpu_has_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """Which are pretended: a worker writes down where it was placed."""

    def prepared(settings: RunSettings, count: int) -> tuple[Any, Any]:
        device = settings.config["backbone"]["device"]
        (tmp_path / f"{device} {os.getpid()}").touch()
        return ToyEditor(settings.directory), processes.Ready(toy_origin(COUNT), Size.square(8))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(processes, "prepared", prepared)
    outcome = runner.execute(settings_at(tmp_path, "runner.executor=processes"))
    assert (outcome.done, outcome.failed) == (COUNT, 0)
    # The run may have ended before the last worker was placed.
    placed = sorted(file.name.split()[0] for file in tmp_path.glob("cuda:*"))
    assert placed
    assert set(placed) <= {f"cuda:{number}" for number in range(gpus)}
    assert len(placed) == len(set(placed))


def test_more_workers_than_gpus_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = {"backbone": {"device": "auto"}}
    found = [processes.placed(config, number)["backbone"]["device"] for number in range(4)]
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    fixed = {"backbone": {"device": "cuda:1"}}
    assert processes.placed(fixed, 0) == fixed


@pytest.mark.usefixtures("workers")
def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "start_crew", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    settings = by_processes(tmp_path / "many")
    (tmp_path / "many" / "case 9 is deadly").write_text("1")
    runner.execute(settings)
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT


@pytest.mark.usefixtures("workers")
def test_a_case_that_kills_its_workers_is_a_failed_record(tmp_path: Path) -> None:
    settings = by_processes(tmp_path)
    (tmp_path / "case 9 is deadly").write_text("always")
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (COUNT, 1)
    (failed,) = [r for r in read_records(settings.directory) if not r.ok]
    assert failed.case == "case 9"
    assert "died 4 times (exit status -9)" in str(failed.error)
    assert RunDirectory(settings.directory).status().state == "failed"


@pytest.mark.usefixtures("workers")
def test_workers_killed_by_chance_change_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when one chunk's workers die three times, and once while a case is tried alone."""
    monkeypatch.setattr(runner, "start_crew", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    settings = by_processes(tmp_path / "many")
    (tmp_path / "many" / "case 9 is deadly").write_text("3")
    runner.execute(settings)
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_hundred_kills_of_workers_and_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "start_crew", ToyCrew)
    expected = undisturbed(tmp_path / "whole")
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    draw, settings, kills, seen = random.Random(1), by_processes(tmp_path / "many"), 0, set[int]()
    while kills < 100:
        if lines_of(settings.directory) == COUNT:  # finished between the kills: begin anew
            assert content(settings.directory) == expected
            settings = by_processes(tmp_path / f"many {kills}")
        child = in_child(settings)
        for _ in range(draw.randrange(1, 6)):
            wait_for_work(settings.directory.parent, draw.randrange(1, 9), child)
            time.sleep(draw.random() * PAUSE * 2)
            victims = children_of(child.pid)
            if victims:
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
        child.kill()
        child.join()
        kills += 1
        seen.add(lines_of(settings.directory))
    runner.execute(settings)
    assert seen - {0, COUNT}  # it was killed on its way
    assert content(settings.directory) == expected
    assert lines_of(settings.directory) == COUNT
    assert not list(tmp_path.rglob("*.partial"))


def children_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.usefixtures("workers")
def test_a_workers_loading_error_is_raised_in_the_parent(
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


def test_missing_ray_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"zerocon\[ray\]"):
        runner.execute(settings_at(tmp_path, "runner.executor=ray"))


Handed = tuple[tuple[str, ...], bool]  # the cases of a task, and whether it is a trial


def outcome_of(dies: Callable[[Task], bool]) -> tuple[list[Handed], list[tuple[str, bool]]]:
    """The tasks of a queue of one chunk if the tasks chosen by `dies` lose their workers, and the
    recorded cases, each with whether it failed."""
    recorded: list[tuple[str, bool]] = []
    handed: list[Handed] = []
    chunk = Chunk(0, 3, ("a", "b", "c"), frozenset("abc"))
    queue = WorkQueue(
        iter([chunk]), lambda _, done: recorded.extend((r.case, r.ok) for r, _ in done)
    )
    while (task := queue.next()) is not None:
        handed.append((task.case_ids, task.is_trial))
        if dies(task):
            queue.died(task, "killed")
        else:
            queue.finished(task, [(Record(case=i, status="ok"), {}) for i in task.case_ids])
    return handed, recorded


WHOLE, TRIALS = (("a", "b", "c"), False), [(("a",), True), (("b",), True), (("c",), True)]


def test_the_case_that_kills_is_found_and_the_others_are_edited_together() -> None:
    handed, recorded = outcome_of(lambda task: "b" in task.case_ids)
    assert handed == [WHOLE, WHOLE, *TRIALS, TRIALS[1], (("a", "c"), False)]
    assert recorded == [("b", False), ("a", True), ("c", True)]


def test_a_chunk_whose_cases_all_survive_alone_is_edited_as_a_whole() -> None:
    deaths = iter([True, True, False, True])  # the chunk twice, and "b" once
    handed, recorded = outcome_of(lambda _: next(deaths, False))
    assert handed == [WHOLE, WHOLE, *TRIALS, TRIALS[1], WHOLE]
    assert recorded == [("a", True), ("b", True), ("c", True)]


def test_a_chunk_that_only_kills_as_a_whole_is_edited_case_by_case() -> None:
    handed, recorded = outcome_of(lambda task: len(task.case_ids) > 1)
    singles = [((case,), False) for case in "abc"]
    assert handed == [WHOLE, WHOLE, *TRIALS, WHOLE, WHOLE, *singles]
    assert recorded == [("a", True), ("b", True), ("c", True)]


def test_changed_code_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_at(tmp_path)
    directory = settings.directory
    runner.execute(settings)
    whole = (directory / "records.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "records.jsonl").write_bytes(b"".join(whole[:8]))
    monkeypatch.setattr(code, "code_digest", lambda: "changed")
    with pytest.raises(ConfigError, match="other code"):
        runner.execute(settings_at(tmp_path, "runner.on_code_change=refuse"))
    runner.execute(settings)
    noted = [r for r in read_records(directory) if any(results.LATER in n for n in r.notes)]
    assert len(noted) == COUNT - 8
    told = Console(file=io.StringIO(), width=200)
    results.report(RunDirectory(directory), told, per_type=False)
    printed = told.file.getvalue()  # type: ignore[attr-defined]
    assert f"{COUNT - 8} of the cases were edited by other code" in printed
    again = runner.execute(settings_at(tmp_path, "runner.on_code_change=rerun"))
    assert not any(r.notes for r in read_records(again.directory))
    assert len(list(tmp_path.glob(f"{directory.name}.*"))) == 1
