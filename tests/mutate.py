"""Change one thing at a time in a module and see whether its tests notice. Run by hand:

python -m tests.mutate zerocon/methods/pnp.py zerocon/losses --sample 20

Each mutant is one changed operator, number, truth value, condition or reduction. Its tests run in
a fork of this process, in which the slow imports are already done, on the changed source; no file
is touched. A mutant that its tests pass has survived: add the assertion that is missing, or know
why the change makes no difference. `TESTS` says which tests are run for a module, `--tests` names
others.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.machinery import SourceFileLoader
from pathlib import Path

SURVIVED, OUT_OF_TIME = 0, 99
PYTEST = ("-xqpno:cacheprovider", "-pno:xdist", "-oaddopts=", "-mnot slow", "--assert=plain")
COMPILED = "--deselect=tests/core/test_taps.py::test_taps_work_on_a_compiled_network"
BOUNDS = "tests/methods/test_bounds.py"
RULE = "tests/parity/test_rule"

# Pattern of a file -> the quick tests that are about it. The first that fits counts.
TESTS: dict[str, tuple[str, ...]] = {
    "*/core/checks.py": ("tests/core/test_checks.py",),
    "*/core/conditions.py": ("tests/methods/test_flow.py", "tests/losses/test_terms.py"),
    "*/core/forward.py": ("tests/core/test_taps.py", f"{RULE}_word_swap.py", COMPILED),
    "*/core/hashing.py": ("tests/core/test_hashing.py",),
    "*/core/levels.py": ("tests/core/test_levels.py", "tests/methods/test_flow.py"),
    "*/core/naming.py": ("tests/core/test_naming.py", "tests/config/test_config.py"),
    "*/core/plain_yaml.py": ("tests/core/test_plain_yaml.py",),
    "*/core/prompts.py": ("tests/core/test_prompts.py", f"{RULE}_p2p.py"),
    "*/core/records.py": ("tests/ledger/test_records.py", "tests/ledger/test_claims.py"),
    "*/core/registry.py": ("tests/test_extending.py",),
    "*/core/shards.py": ("tests/runs/test_faults.py", "-k", "shard"),
    "*/core/solvers.py": (f"{RULE}_inversions.py", "-k", "edit_friendly"),
    "*/core/taps.py": ("tests/core/test_taps.py", COMPILED),
    "*/core/text.py": ("tests/core/test_text.py",),
    "*/core/weights.py": ("tests/core/test_weights.py",),
    "*/core/word_maps.py": (
        "tests/core/test_word_maps.py",
        f"{RULE}_masactrl.py",
        "tests/methods/test_p2p.py",
    ),
    "*/methods/cds.py": (f"{RULE}_zerocon.py", "-k", "cds"),
    "*/methods/ddim.py": (f"{RULE}_word_swap.py", "tests/methods/test_flow.py"),
    "*/methods/dds.py": (BOUNDS, "tests/methods/test_dds.py", f"{RULE}_zerocon.py"),
    "*/methods/sdedit.py": (BOUNDS, f"{RULE}_word_swap.py", "tests/methods/test_methods.py"),
    "*/methods/zerocon.py": (
        BOUNDS,
        "tests/methods/test_flow.py",
        f"{RULE}_zerocon.py",
        "tests/methods/test_zerocon.py",
    ),
    "*/methods/*.py": (BOUNDS, f"{RULE}_{{module}}.py", "tests/methods/test_{module}.py"),
    "*/inversions/*.py": (
        BOUNDS,
        "tests/inversions",
        f"{RULE}_inversions.py",
        f"{RULE}_masactrl.py",
        f"{RULE}_word_swap.py",
    ),
    "*/losses/gradients.py": ("tests/methods/test_zerocon.py",),
    "*/losses/*.py": (
        BOUNDS,
        "tests/losses",
        f"{RULE}_zerocon.py",
        "tests/methods/test_zerocon.py",
    ),
}

Edit = Callable[[ast.AST], None]  # changes the node in place

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}
CALLS = {
    "max": "min", "min": "max", "amax": "mean", "amin": "amax", "mean": "sum", "sum": "mean",
    "round": "int", "int": "round", "any": "all", "all": "any", "floor": "ceil",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change."""

    file: Path
    source: str
    said: str  # where the change is, and what it is

    def run(self, tests: Iterable[str], limit: float) -> int:
        """pytest's exit status in a fork that imports the changed module."""
        child = os.fork()
        if child == 0:
            _run_tests(self, tests)
        return _status(child, limit)


def mutants(file: Path) -> list[Mutant]:
    """All of a module's, in the order of its syntax tree."""
    text = file.read_text()
    tree = ast.parse(text)
    left_alone = {id(node) for whole in _left_alone(tree) for node in ast.walk(whole)}
    return [
        _mutant(file, tree, place, edit)
        for place, node in enumerate(ast.walk(tree))
        if id(node) not in left_alone
        for edit in _edits(node)
    ]


def _left_alone(tree: ast.Module) -> Iterator[ast.AST]:
    """Decorators (`frozen=True`), and the defaults of settings, which tests/config holds."""
    for node in ast.walk(tree):
        yield from getattr(node, "decorator_list", ())
        if isinstance(node, ast.ClassDef):
            fields = (field for field in node.body if isinstance(field, ast.AnnAssign))
            yield from (field.value for field in fields if field.value)


def _mutant(file: Path, tree: ast.Module, place: int, edit: Edit) -> Mutant:
    changed = copy.deepcopy(tree)
    node = list(ast.walk(changed))[place]
    before, line = ast.unparse(node), getattr(node, "lineno", 0)
    edit(node)
    said = f"{file}:{line}: {before} -> {ast.unparse(node)}".replace("\n", " ")
    return Mutant(file, ast.unparse(ast.fix_missing_locations(changed)), said[:200])


def _edits(node: ast.AST) -> Iterator[Edit]:
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield _other_operator
        case ast.UnaryOp(op=ast.USub()):
            yield _other_operator
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            yield _twice
        case ast.Compare(ops=[op, *_]) if type(op) in SWAPS:
            yield _other_comparison
        case ast.Constant(value=bool() | int() | float()):
            yield _other_constant
        case ast.If() | ast.IfExp():
            yield _other_branch
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in CALLS:
            yield _other_call
        case _:
            pass


def _other_operator(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp)
    setattr(node, "op", SWAPS[type(node.op)]())  # noqa: B010 - of one of many types


def _other_comparison(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    setattr(node, "ops", [SWAPS[type(node.ops[0])](), *node.ops[1:]])  # noqa: B010


def _twice(node: ast.AST) -> None:
    """`not x` becomes `not not x`."""
    assert isinstance(node, ast.UnaryOp)
    node.operand = ast.UnaryOp(type(node.op)(), node.operand)


def _other_constant(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    if isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node.value, int | float):
        node.value += 1


def _other_branch(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _other_call(node: ast.AST) -> None:
    assert isinstance(node, ast.Call)
    if isinstance(node.func, ast.Attribute):
        node.func.attr = CALLS[node.func.attr]
    elif isinstance(node.func, ast.Name):
        node.func.id = CALLS[node.func.id]


def _run_tests(mutant: Mutant, tests: Iterable[str]) -> None:
    """In the fork: never returns."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    status = 1
    try:
        import pytest

        _put_in_place(mutant)
        status = int(pytest.main([*PYTEST, *tests]))
    finally:
        os._exit(status)


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


def _status(child: int, limit: float) -> int:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return OUT_OF_TIME


def tests_of(file: Path) -> tuple[str, ...]:
    found = next((TESTS[p] for p in TESTS if fnmatchcase(file.as_posix(), p)), None)
    if found is None:
        raise SystemExit(f"no tests are known for {file}; name them: --tests tests/…")
    return tuple(part.format(module=file.stem) for part in found)


def survivors(file: Path, tests: Iterable[str], sample: int, seed: int) -> tuple[int, list[str]]:
    """(how many mutants were tried, what the tests did not notice)."""
    started = time.monotonic()
    if Mutant(file, file.read_text(), "").run(tests, limit=600) != SURVIVED:
        raise SystemExit(f"the tests of {file} fail without any change: {' '.join(tests)}")
    limit = 30 + 5 * (time.monotonic() - started)
    every = mutants(file)
    chosen = random.Random(seed).sample(every, min(sample, len(every)))
    found = [mutant.said for mutant in chosen if mutant.run(tests, limit) == SURVIVED]
    print(f"{file}: {len(chosen)} of {len(every)} mutants, {len(found)} survived", flush=True)
    for said in found:
        print(f"  {said}", flush=True)
    return len(chosen), found


def files_of(named: Iterable[Path]) -> Iterator[Path]:
    for path in named:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    reader.add_argument("files", nargs="+", type=Path, help="modules, or folders of them")
    reader.add_argument("--sample", type=int, default=20, help="at most so many mutants a module")
    reader.add_argument("--seed", type=int, default=0, help="of the sample")
    reader.add_argument("--tests", nargs="+", help="instead of those in TESTS")
    reader.add_argument("--out", type=Path, help="a JSON file for the survivors")
    asked = reader.parse_args()
    _import_what_is_slow()
    found = {
        str(file): survivors(file, asked.tests or tests_of(file), asked.sample, asked.seed)
        for file in files_of(asked.files)
        if len(mutants(file))
    }
    tried, alive = sum(n for n, _ in found.values()), sum(len(s) for _, s in found.values())
    print(f"{tried} mutants, {tried - alive} killed ({(tried - alive) / max(tried, 1):.0%})")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


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
        del sys.modules[name]


if __name__ == "__main__":
    main()
