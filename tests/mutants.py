"""One change at a time to a module's source: what `tests.mutate` tries."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

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
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS = {
    "max": "min", "min": "max", "amax": "mean", "amin": "amax", "mean": "sum", "sum": "mean",
    "round": "int", "int": "round", "any": "all", "all": "any", "floor": "ceil",
}  # fmt: skip
LEFT_OUT = ("abs", "clamp", "detach", "exp", "flip", "log", "lower", "softmax", "sqrt", "square")


@dataclass(frozen=True, eq=False)
class Mutant:
    """A module with one change. The lines of `tree` are those of the file."""

    file: Path
    tree: ast.Module
    lines: range  # of what is changed
    function: str | None  # the outermost function around it; none at a module's or class's level
    said: str  # where the change is, and what it is

    @property
    def source(self) -> str:
        return ast.unparse(self.tree)

    def function_code(self) -> list[CodeType]:
        """The changed function, compiled; several if the module defines the name again."""
        module = compile(self.tree, str(self.file), "exec", dont_inherit=True)
        return [code for code in _codes(module) if code.co_qualname == self.function]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def mutants(file: Path, sample: int | None = None, seed: object = 0) -> list[Mutant]:
    """A module's mutants, in the order of its source; or as many of them, chosen at random."""
    tree = ast.parse(file.read_text())
    every = [
        (node, other, function)
        for node, function in _nodes(tree, (), None)
        for other in _changed(node)
    ]
    if sample is not None and sample < len(every):
        every = random.Random(f"{seed}/{file.name}").sample(every, sample)
    return [_mutant(file, tree, *change) for change in every]


def _mutant(
    file: Path, tree: ast.Module, node: ast.AST, other: ast.AST, function: str | None
) -> Mutant:
    whole = _with(tree, node, other)
    assert isinstance(whole, ast.Module)
    place = _place(node)
    before, after = (" ".join(ast.unparse(n).split()) for n in (node, other))
    said = f"{file}:{place.start}: {before[:90]} -> {after[:90]}"
    return Mutant(file, ast.fix_missing_locations(whole), place, function, said)


def _place(node: ast.AST) -> range:
    """The lines of a condition, or of the whole expression."""
    what: Any = node
    if isinstance(node, ast.If | ast.While):
        what = node.test
    if isinstance(node, ast.comprehension):
        what = node.ifs[0]
    return range(what.lineno, what.end_lineno + 1)


def _with(node: Any, old: ast.AST, new: ast.AST) -> Any:
    """A copy of `node` in which `new` stands for `old`."""
    if node is old:
        return new
    if isinstance(node, list):
        return [_with(child, old, new) for child in node]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: _with(child, old, new) for name, child in ast.iter_fields(node)}
    return ast.copy_location(type(node)(**fields), node)


def _nodes(
    node: ast.AST, names: tuple[str, ...], function: str | None
) -> Iterator[tuple[ast.AST, str | None]]:
    """What may be changed, each with the function that it is in.

    Not annotations and what is imported for them, decorators (`frozen=True`), and the defaults of
    settings, which tests/config compares with the yaml files.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node, function
    if isinstance(node, ast.ClassDef):
        names = (*names, node.name)
        children = [n for n in node.body if not isinstance(n, ast.AnnAssign)]
    elif isinstance(node, ast.FunctionDef):
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            yield from _nodes(default, names, function)
        function = function or ".".join((*names, node.name))
        children = node.body
    elif isinstance(node, ast.AnnAssign):
        children = [node.value] if node.value else []
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _nodes(child, names, function)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand for a node instead."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield _but(node, op=SWAPS[type(op)]())
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            yield node.operand
        case ast.Compare(ops=[op, *others]) if type(op) in SWAPS:
            yield _but(node, ops=[SWAPS[type(op)](), *others])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _but(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[first, *others]):
            yield _but(node, ifs=[ast.UnaryOp(ast.Not(), first), *others])
        case ast.Expr(value=ast.Call()):
            yield ast.copy_location(ast.Pass(), node)
        case ast.Constant(value=bool() | int() | float() as value):
            yield _but(node, value=not value if isinstance(value, bool) else value + 1)
        case ast.Call(func=func):
            yield from _other_calls(node, func)
        case _:
            pass


def _other_calls(node: ast.Call, func: ast.expr) -> Iterator[ast.AST]:
    match func:
        case ast.Name(id=name) if name in CALLS:
            yield _but(node, func=_but(func, id=CALLS[name]))
        case ast.Attribute(attr=name) if name in CALLS:
            yield _but(node, func=_but(func, attr=CALLS[name]))
        case ast.Attribute(value=before, attr=name) if name in LEFT_OUT:
            yield before
        case _:
            pass


def _but(node: ast.AST, **changes: Any) -> ast.AST:
    """The node with other fields."""
    return ast.copy_location(type(node)(**(dict(ast.iter_fields(node)) | changes)), node)
