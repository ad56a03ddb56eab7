"""Every method with the inversions and directions that make sense with it, from their classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zerocon.config.settings import CONF, build, compose_config, method_of, partners, plain
from zerocon.directions.word_swap import WordSwap


@dataclass(frozen=True)
class Fits:
    """Every choice beside a method at its usual settings, and what speaks against it."""

    method: str
    inversions: dict[str, str]
    directions: dict[str, str]


def every_method() -> list[Fits]:
    return [fits(file.stem) for file in sorted((CONF / "method").glob("*.yaml"))]


def fits(name: str) -> Fits:
    config = plain(compose_config([f"method={name}"]))
    method, inversion = method_of(config), build(config, "inversion")()
    return Fits(
        name,
        partners(config, "inversion", method, inversion, WordSwap()),
        partners(config, "direction", method, inversion, WordSwap()),
    )


def tables(rows: Sequence[Fits]) -> str:
    """The valid pairs in Markdown: of methods and inversions, of methods and directions."""
    inversions = {row.method: row.inversions for row in rows}
    directions = {row.method: row.directions for row in rows}
    return "\n\n".join("\n".join(_table(pairs)) for pairs in (inversions, directions))


def _table(pairs: dict[str, dict[str, str]]) -> Iterator[str]:
    head = ["method", *next(iter(pairs.values()))]
    yield _row(head)
    yield _row(["---"] * len(head))
    for method, reasons in pairs.items():
        yield _row([method, *("–" if why else "yes" for why in reasons.values())])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def refusals(rows: Sequence[Fits]) -> Iterator[str]:
    """Why each of the others is refused, a line a reason."""
    for row in rows:
        by_reason: dict[str, list[str]] = {}
        for group, reasons in (("inversion", row.inversions), ("direction", row.directions)):
            for choice, why in reasons.items():
                if why:
                    by_reason.setdefault(why, []).append(f"{group}={choice}")
        for why, choices in by_reason.items():
            yield f"{row.method} with {', '.join(choices)}: {why}"
