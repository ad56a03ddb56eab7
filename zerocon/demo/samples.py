"""Pictures to begin with: the first case of each edit type of the shapes world's benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zerocon.core.cases import Case
from zerocon.core.pictures import case_pictures
from zerocon.core.size import Size
from zerocon.datasets.pie_bench import PICTURES
from zerocon.datasets.shapes import ShapesPIE

SIZE, SPLIT = 20, "test"


@dataclass(frozen=True, eq=False)
class Sample:
    """A case with its files; `truth` is what its edit should be."""

    case: Case
    file: Path
    picture: Image.Image
    truth: Image.Image | None

    @property
    def title(self) -> str:
        return self.case.edit_name or self.case.id


def samples(size: Size) -> list[Sample]:
    """None of these was chosen for its result: they are the first of their types."""
    dataset = ShapesPIE(SIZE, SPLIT, size)
    found: dict[str, Sample] = {}
    for case_id in dataset.ids:
        case = dataset.load(case_id)
        if case.edit_type not in found:
            pictures = case_pictures(case)
            place = dataset.root / PICTURES / (dataset.source_path(case_id) or "")
            found[case.edit_type] = Sample(case, place, pictures["source"], pictures.get("truth"))
    # Beginning with an object's change, the first edit that people think of.
    return sorted(found.values(), key=lambda sample: (sample.case.edit_type == "0",))
