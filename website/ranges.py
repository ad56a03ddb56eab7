"""The ranges that the classes check: read from their calls of `in_range` and `one_of`.

The calls stay where they are; this module reads the source of a class, of its bases, and of the
functions that these call.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, cast

from zerocon.core import checks

Scope = Mapping[str, Any]
PACKAGE = "zerocon."


@cache
def ranges(choice: Callable[..., Any]) -> dict[str, str]:
    """{setting: the values that its class accepts, in words}"""
    return {name: said for name, said in _found(choice) if name}


def unread(choice: Callable[..., Any]) -> list[str]:
    """Checks whose setting or bounds can't be read from the source."""
    return [said for name, said in _found(choice) if not name]


def _found(choice: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    classes = inspect.getmro(choice) if inspect.isclass(choice) else (choice,)
    for one in classes:
        if one.__module__.startswith(PACKAGE):
            yield from _checks(one, {"self": choice, "cls": choice}, set())


def _checks(owner: Any, scope: Scope, seen: set[Any]) -> Iterator[tuple[str, str]]:
    """The checks in a class or function, and in the functions of ours that it calls."""
    if owner in seen:
        return
    seen.add(owner)
    names = {**vars(sys.modules[owner.__module__]), **scope}
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    for call, variables in _calls(tree, names):
        known = {**names, **variables}
        called = known.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if called is checks.in_range:
            yield _said(call, known, _bounds)
        elif called is checks.one_of:
            yield _said(call, known, _options)
        elif inspect.isfunction(called) and called.__module__.startswith(PACKAGE):
            yield from _checks(called, scope, seen)


def _calls(node: ast.AST, names: Scope) -> Iterator[tuple[ast.Call, Scope]]:
    """All calls, those inside a loop over given values once for each value."""
    if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
        try:
            values: list[Any] = list(_value(node.iter, names))
        except (NameError, AttributeError, TypeError):
            values = []
        for value in values:
            scope = {node.target.id: value}
            for child in node.body:
                yield from ((c, {**scope, **v}) for c, v in _calls(child, {**names, **scope}))
        if values:
            return
    if isinstance(node, ast.Call):
        yield node, {}
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, names)


def _said(call: ast.Call, names: Scope, words: Callable[[ast.Call, Scope], str]) -> tuple[str, str]:
    try:
        setting = str(_value(call.args[0], names))
        return setting.rpartition(".")[2], words(call, names)
    except (NameError, AttributeError, TypeError):
        return "", ast.unparse(call)


def _value(node: ast.expr, names: Scope) -> Any:
    return eval(compile(ast.Expression(node), "source", "eval"), dict(names))  # noqa: S307 - our own source


def _bounds(call: ast.Call, names: Scope) -> str:
    given = [_bound(node, names) for node in call.args[2:]]
    low, high = [*given, None, None][:2]
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else ""


def _bound(node: ast.expr, names: Scope) -> str | None:
    if any(isinstance(part, ast.Name) and part.id == "self" for part in ast.walk(node)):
        return f"`{ast.unparse(node).replace('self.', '')}`"  # another setting
    value = cast("float", _value(node, names))
    return None if math.isinf(value) else f"{value:g}"


def _options(call: ast.Call, names: Scope) -> str:
    return ", ".join(f"`{option}`" for option in _value(call.args[2], names))
