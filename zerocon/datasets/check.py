"""Load every case of a dataset and say what is wrong, or only odd, with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from zerocon.core.cases import Case, CaseError, Dataset


@dataclass
class Report:
    """What was found."""

    cases: int = 0
    broken: int = 0
    notes: Counter[str] = field(default_factory=Counter[str])

    def summary(self) -> str:
        noted = "".join(f"\n  {count} x {note}" for note, count in self.notes.most_common())
        return f"{self.cases} cases, {self.broken} of them can't be used" + noted


def check_cases(dataset: Dataset, report: Report) -> Iterator[str]:
    """A line for each case that can't be used, with all that is wrong; notes are counted."""
    for case_id in dataset.ids:
        report.cases += 1
        try:
            case = dataset.load(case_id)
        except CaseError as error:
            report.broken += 1
            yield f"case {case_id}: {error}"
        else:
            report.notes.update([*case.notes, *oddities(case)])


def oddities(case: Case) -> Iterator[str]:
    """What can be used, but may not be meant."""
    if case.source_prompt == case.target_prompt:
        yield "the source and the target prompt are the same"
    if case.mask is not None and not bool(case.mask.any()):
        yield "the mask marks nothing"
    if case.mask is not None and bool(case.mask.all()):
        yield "the mask leaves no background"
