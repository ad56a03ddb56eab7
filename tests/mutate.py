"""Change one thing at a time in a module and see whether its tests notice. Run by hand:

python -m tests.mutate zerocon/methods/pnp.py zerocon/losses --sample 20

A mutant is one changed operator, number, truth value, condition, reduction or call
(`tests.mutants`). No file is touched. All tests in question run once as they are, and what lines
each reaches is written down. Then each mutant gets a fork of that process, in which imports are
done and models are built: the changed function is put in place, and the tests that reach its line
run, quickest first, until one fails or `--seconds` are spent. A change outside of functions is
tried in a process that imports the changed source; with `--anew`, so is every mutant that nobody
noticed (some functions act when a module is imported or a model is built).

A mutant that all these tests pass has survived: add the assertion that is missing, or know why
the change makes no difference. `TESTS` says which tests are about a module.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants import Mutant, mutants

SURVIVED, NOTICED, ANEW = 0, 1, -100  # the last: not tried yet
PYTEST = ("-xqqsp", "no:cacheprovider", "-pno:xdist", "-oaddopts=", "-mnot slow", "--assert=plain")
BOUNDS = "tests/methods/test_bounds.py"
EDITORS = "tests/methods/test_flow_editors.py"
FLOW = "tests/methods/test_flow.py"
RULE = "tests/parity/test_rule"

# Pattern of a file -> the quick tests that are about it, as `file` or `file::pattern`. The first
# that fits counts; files that are not there are left out.
TESTS: dict[str, tuple[str, ...]] = {
    "*/core/checks.py": ("tests/core/test_checks.py", BOUNDS),
    "*/core/conditions.py": ("tests/losses/test_terms.py", f"{RULE}_word_swap.py"),
    "*/core/files.py": ("tests/core/test_files.py",),
    "*/core/forward.py": ("tests/core/test_taps.py", f"{RULE}_word_swap.py"),
    "*/core/hashing.py": ("tests/core/test_hashing.py",),
    "*/core/interrupt.py": ("tests/core/test_interrupt.py",),
    "*/core/levels.py": ("tests/core/test_levels.py", FLOW),
    "*/core/limits.py": ("tests/config/test_config.py",),
    "*/core/memory.py": ("tests/core/test_memory.py",),
    "*/core/naming.py": ("tests/core/test_naming.py", "tests/config/test_config.py"),
    "*/core/pictures.py": ("tests/core/test_pictures.py",),
    "*/core/plain_yaml.py": ("tests/core/test_plain_yaml.py",),
    "*/core/prompts.py": ("tests/core/test_prompts.py", f"{RULE}_p2p.py"),
    "*/core/quiet.py": ("tests/core/test_quiet.py",),
    "*/core/records.py": ("tests/ledger/test_records.py", "tests/ledger/test_claims.py"),
    "*/core/registry.py": ("tests/core/test_naming.py", "tests/config/test_foreign.py::*ones_own*"),
    "*/core/sampling.py": ("tests/core/test_solvers.py",),
    "*/core/shards.py": ("tests/runs/test_faults.py::*shard*",),
    "*/core/solvers.py": ("tests/core/test_solvers.py", f"{RULE}_inversions.py::*edit_friendly*"),
    "*/core/source_code.py": ("tests/core/test_source_code.py",),
    "*/core/taps.py": ("tests/core/test_taps.py", "tests/methods/test_pnp.py"),
    "*/core/text.py": ("tests/core/test_text.py",),
    "*/core/timesteps.py": ("tests/core/test_levels.py",),
    "*/core/weights.py": ("tests/core/test_weights.py",),
    "*/core/word_maps.py": (
        "tests/core/test_word_maps.py",
        f"{RULE}_masactrl.py",
        "tests/methods/test_p2p.py",
    ),
    "*/methods/cds.py": (BOUNDS, "tests/methods/test_dds.py", f"{RULE}_zerocon.py::*cds*"),
    "*/methods/ddim.py": (BOUNDS, f"{RULE}_word_swap.py", FLOW),
    "*/methods/dds.py": (BOUNDS, "tests/methods/test_dds.py", f"{RULE}_zerocon.py::*dds*"),
    "*/methods/sdedit.py": (BOUNDS, f"{RULE}_word_swap.py", "tests/methods/test_methods.py"),
    "*/methods/zerocon.py": (BOUNDS, f"{RULE}_zerocon.py", "tests/methods/test_zerocon.py", FLOW),
    "*/methods/dnaedit.py": (BOUNDS, EDITORS),
    "*/methods/flow*.py": (BOUNDS, EDITORS),
    "*/methods/rf_inversion.py": (BOUNDS, EDITORS),
    "*/methods/uniedit.py": (BOUNDS, EDITORS),
    "*/methods/*.py": (BOUNDS, f"{RULE}_{{module}}.py", "tests/methods/test_{module}.py"),
    "*/inversions/by_solver.py": (BOUNDS, EDITORS, "tests/inversions"),
    "*/inversions/rf_inversion.py": (BOUNDS, EDITORS, "tests/inversions"),
    "*/inversions/turbo_edit.py": (BOUNDS, "tests/methods/test_turbo_edit.py"),
    "*/inversions/regularized.py": (
        BOUNDS,
        "tests/inversions",
        "tests/parity/test_regularized_grids.py",
        f"{RULE}_inversions.py::*regularized*",
    ),
    "*/inversions/*.py": (
        BOUNDS,
        FLOW,
        "tests/inversions",
        f"{RULE}_inversions.py",
        f"{RULE}_masactrl.py",
        f"{RULE}_word_swap.py",
    ),
    "*/losses/*.py": (
        BOUNDS,
        "tests/losses",
        f"{RULE}_zerocon.py",
        "tests/methods/test_zerocon.py",
    ),
}
NEVER = ("*test_taps_work_on_a_compiled_network*",)  # slow, and no better than its neighbours


def tests_of(file: Path) -> list[str]:
    found = next((TESTS[p] for p in TESTS if fnmatchcase(file.as_posix(), p)), ())
    parts = [part.format(module=file.stem) for part in found]
    there = [part for part in parts if Path(part.partition("::")[0]).exists()]
    if not there:
        raise SystemExit(f"no tests are known for {file}; add them to TESTS, or give --tests")
    return there


def belongs(test: str, to: Iterable[str]) -> bool:
    """Whether a test's id is one of those that `file`, `folder` or `file::pattern` name."""
    return any(
        fnmatchcase(test, named if "::" in named else f"{named}[:/]*") for named in to
    ) and not any(fnmatchcase(test, pattern) for pattern in NEVER)


@dataclass(frozen=True)
class Reached:
    """What a test took when nothing was changed, and the lines that it reached, by file."""

    seconds: float  # of processor time
    lines: dict[str, set[int]]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the exit status of its tests, and which they were, in order."""

    status: int
    tests: list[str]


class Trials:
    """A pytest plugin: runs each test once as things are, then tries the mutants on forks."""

    def __init__(
        self,
        by_file: dict[Path, list[Mutant]],
        tests: dict[Path, list[str]],
        seconds: float,
        out: Path,
    ) -> None:
        self.by_file, self.tests, self.seconds, self.out = by_file, tests, seconds, out
        self.report = os.fdopen(os.dup(1), "w")  # where what the tests print does not go
        self.places = {str(file.resolve()) for file in by_file}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        every = [test for tests in self.tests.values() for test in tests]
        items[:] = [item for item in items if belongs(item.nodeid, every)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests could not be collected")
        watched = {item.nodeid: self._watched(item) for item in session.items}
        reached = {test: found for test, found in watched.items() if found is not None}
        for test in watched.keys() - reached.keys():
            print(f"left out, since it fails without any change: {test}", file=self.report)
        took = sum(test.seconds for test in reached.values())
        print(f"{len(reached)} tests, {took:.0f} s without changes", file=self.report, flush=True)
        items = {item.nodeid: item for item in session.items}
        functions = _functions_in(self.places)
        gc.collect()
        gc.freeze()
        with self.out.open("a") as out:
            for file, ours in self.by_file.items():
                for number, mutant in enumerate(ours):
                    verdict = self._verdict(mutant, items, reached, functions)
                    print(json.dumps([str(file), number, verdict.status, verdict.tests]), file=out)
                    out.flush()
        return True

    def _watched(self, item: pytest.Item) -> Reached | None:
        lines: dict[str, set[int]] = defaultdict(set)

        def within(frame: FrameType, event: str, _: object) -> Any:
            lines[frame.f_code.co_filename].add(frame.f_lineno)
            return within

        def called(frame: FrameType, event: str, _: object) -> Any:
            return within if frame.f_code.co_filename in self.places else None

        started = time.process_time()
        sys.settrace(called)
        try:
            passed = _passes(item)
        finally:
            sys.settrace(None)
        return Reached(time.process_time() - started, dict(lines)) if passed else None

    def _verdict(
        self,
        mutant: Mutant,
        items: dict[str, pytest.Item],
        reached: dict[str, Reached],
        functions: dict[tuple[str, str], list[FunctionType]],
    ) -> Verdict:
        place = str(mutant.file.resolve())
        own = [test for test in reached if belongs(test, self.tests[mutant.file])]
        # A change at a module's level has acted when it was imported, for all who use the module.
        lines = mutant.lines if mutant.function else range(10**6)
        about = [t for t in own if reached[t].lines.get(place, set()).intersection(lines)] or own
        chosen = list(_quickest({test: reached[test].seconds for test in about}, self.seconds))
        changed = functions.get((place, mutant.function or ""), [])
        codes = mutant.function_code()
        if not changed or len(codes) != 1:
            return Verdict(ANEW, chosen)
        limit = 5 + 5 * sum(reached[test].seconds for test in chosen)

        def tried() -> int:
            for function in changed:
                function.__code__ = codes[0]
            return SURVIVED if all(_passes(items[test]) for test in chosen) else NOTICED

        return Verdict(in_a_fork(tried, limit), chosen)


def _quickest(seconds: dict[str, float], most: float) -> Iterator[str]:
    """Tests that take no more than `most` seconds together, but at least one."""
    spent = 0.0
    for test in sorted(seconds, key=seconds.__getitem__):
        if spent and spent + seconds[test] > most:
            return
        spent += seconds[test]
        yield test


def _passes(item: pytest.Item) -> bool:
    """Run a test and undo its set-up, but not what the whole session shares."""
    session: Any = item.session
    return all(r.passed or r.skipped for r in runtestprotocol(item, log=False, nextitem=session))


def _functions_in(places: set[str]) -> dict[tuple[str, str], list[FunctionType]]:
    """All functions of these files, by file and qualified name."""
    found: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename in places:
            found[thing.__code__.co_filename, thing.__code__.co_qualname].append(thing)
    return found


def in_a_fork(run: Callable[[], int], limit: float) -> int:
    """What `run` returns in a fork that may take so many seconds of processor time."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _alone(run, limit)
    end = time.monotonic() + 20 + 5 * limit  # the machine may be busy; a deadlock takes no time
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


def _alone(run: Callable[[], int], limit: float) -> None:
    """In the fork: never returns."""
    os.setsid()
    _hide_what_is_printed()
    seconds = int(limit) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    status = NOTICED
    try:
        status = run()
    finally:
        os._exit(status)


def _hide_what_is_printed() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def imported_anew(mutant: Mutant, tests: Sequence[str], limit: float) -> int:
    """pytest's exit status where the changed source is what is imported."""

    def run() -> int:
        _put_in_place(mutant)
        return int(pytest.main([*PYTEST, *tests]))

    return in_a_fork(run, limit)


def _put_in_place(mutant: Mutant) -> None:
    """Whoever loads the module's file from now on gets the mutant's source."""
    place = str(mutant.file.resolve())
    data_of, stats_of = SourceFileLoader.get_data, SourceFileLoader.path_stats

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        return mutant.source.encode() if path == place else data_of(self, path)

    def path_stats(self: SourceFileLoader, path: str) -> object:
        if path == place:
            raise OSError("bytecode from before is not of this source")
        return stats_of(self, path)

    setattr(SourceFileLoader, "get_data", get_data)  # noqa: B010
    setattr(SourceFileLoader, "path_stats", path_stats)  # noqa: B010


def tried(
    by_file: dict[Path, list[Mutant]], tests: dict[Path, list[str]], seconds: float, anew: bool
) -> Iterator[tuple[Mutant, int]]:
    """Each mutant, with the exit status of its tests."""
    files = {test.partition("::")[0] for some in tests.values() for test in some}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "verdicts.jsonl"
        child = os.fork()
        if child == 0:
            trials = Trials(by_file, tests, seconds, out)
            _hide_what_is_printed()
            os._exit(int(pytest.main([*PYTEST, *sorted(files)], [trials])))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not out.exists():
            raise SystemExit(f"the tests did not run: pytest ended with {status}")
        for file, number, status, chosen in map(json.loads, out.read_text().splitlines()):
            mutant = by_file[Path(file)][number]
            again = status == ANEW or (anew and status == SURVIVED)
            yield mutant, imported_anew(mutant, chosen, limit=300) if again else status


def files_of(named: Iterable[Path]) -> Iterator[Path]:
    for path in named:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    reader.add_argument("files", nargs="+", type=Path, help="modules, or folders of them")
    reader.add_argument("--sample", type=int, default=20, help="at most so many mutants a module")
    reader.add_argument("--seed", type=int, default=0, help="of the sample")
    reader.add_argument("--tests", nargs="+", help="instead of those in TESTS")
    reader.add_argument("--seconds", type=float, default=20, help="at most, of tests a mutant")
    reader.add_argument("--anew", action="store_true", help="import what survived once more")
    asked = reader.parse_args()
    by_file = {f: mutants(f, asked.sample, asked.seed) for f in files_of(asked.files)}
    by_file = {file: some for file, some in by_file.items() if some}
    tests = {file: asked.tests or tests_of(file) for file in by_file}
    _import_what_is_slow()
    count, alive = Counter[str](), Counter[str]()
    for mutant, status in tried(by_file, tests, asked.seconds, asked.anew):
        room = str(mutant.file.parent)
        count[room] += 1
        if status == SURVIVED:
            alive[room] += 1
            print(f"survived: {mutant.said}", flush=True)
    for room in count:
        share = 1 - alive[room] / count[room]
        print(f"{room}: {count[room]} mutants, {alive[room]} survived: {share:.0%} noticed")


def _import_what_is_slow() -> None:
    """Once, before the forks. Each fork imports our own modules anew: one of them is changed."""
    import diffusers
    import hydra
    import transformers

    import tests.conftest

    for slow in (diffusers.UNet2DConditionModel, diffusers.DDIMScheduler, hydra.main):
        assert slow
    assert diffusers.AutoencoderKL
    assert transformers.CLIPTextModel
    assert tests.conftest
    for name in [name for name in sys.modules if name.partition(".")[0] in ("zerocon", "tests")]:
        if name not in ("tests", "tests.mutants", __name__):
            del sys.modules[name]


if __name__ == "__main__":
    main()
