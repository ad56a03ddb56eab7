"""Forward passes by role: what they cost, and which rows guidance takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.forward import Asked, Evaluations, predict, predict_each, predict_guided
from zerocon.core.levels import Guess, Level, flow_level
from zerocon.core.taps import Taps

HALF = flow_level(0.5)


class Toy:
    """Says its text's number as the clean latent; `asked` are the texts of its last pass."""

    def __init__(self, *, told: bool = False) -> None:
        self.taps, self.evaluations = Taps(()), Evaluations()
        self.guidance_is_told = told
        self.asked: list[float] = []
        self.guidance: Tensor | None = None

    def predict(self, z: Tensor, level: Level, condition: Condition) -> Guess:
        self.evaluations.count(z, condition)
        self.asked, self.guidance = condition.tokens.flatten().tolist(), condition.guidance
        return Guess(condition.tokens[..., None].expand_as(z), z)


def text(number: float) -> Condition:
    return Condition(torch.full((1, 1, 1), number))


Z = torch.zeros(1, 1, 1, 1)


def test_rows_of_a_source_beside_its_edit_are_counted() -> None:
    toy = Toy()
    predict(toy, HALF, {"source": (Z, text(1.0)), "target": (Z, text(2.0))})
    predict(toy, HALF, {"target": (Z, text(2.0))})
    assert toy.evaluations == Evaluations(forward=3, reference=1)


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 1), (2.0, 2), (0.0, 2)])
def test_guidance_takes_a_row_more_unless_its_scale_is_1(scale: float, rows: int) -> None:
    """`∅ + w (c - ∅)` of ∅ = 3 and c = 5."""
    toy = Toy()
    guess = predict_guided(toy, HALF, Z, text(3.0), text(5.0), scale)
    assert guess.clean.item() == 3.0 + scale * 2.0
    assert toy.evaluations.forward == rows


def test_every_role_has_its_own_negative_row() -> None:
    toy = Toy()
    asked = {"source": Asked(Z, text(7.0), 2.0), "target": Asked(Z, text(5.0), 3.0),
             "plain": Asked(Z, text(1.0), 1.0)}  # fmt: skip
    found = predict_each(toy, HALF, text(3.0), asked)
    assert {role: guess.clean.item() for role, guess in found.items()} == {
        "source": 3 + 2 * 4, "target": 3 + 3 * 2, "plain": 1
    }  # fmt: skip
    assert toy.asked == [3.0, 7.0, 3.0, 5.0, 1.0]


def test_rows_are_named_as_losses_and_taps_know_them() -> None:
    seen: list[tuple[str, ...]] = []
    toy = Toy()
    labelled = toy.taps.labelled

    def noting(roles: tuple[str, ...], count: int):
        seen.append(roles)
        return labelled(roles, count)

    toy.taps.labelled = noting  # pyright: ignore[reportAttributeAccessIssue]
    asked = {"source": Asked(Z, text(7.0), 2.0), "target": Asked(Z, text(5.0), 3.0)}
    predict_each(toy, HALF, text(3.0), asked)
    assert seen == [("source_negative", "source", "negative", "target")]


def test_a_network_that_is_told_guidance_has_no_negative_row() -> None:
    toy = Toy(told=True)
    guess = predict_guided(toy, HALF, Z, text(3.0), text(5.0), 4.0)
    assert toy.asked == [5.0]
    assert guess.clean.item() == 5.0
    assert toy.guidance is not None
    assert toy.guidance.tolist() == [4.0]
