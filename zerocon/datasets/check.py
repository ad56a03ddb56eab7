"""Load every case of a dataset and list errors and oddities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from zerocon.core.cases import Case, CaseError, Dataset
from zerocon.core.text import counted


@dataclass
class Report:
    """Counts of a check's findings."""

    cases: int = 0
    broken: int = 0
    notes: Counter[str] = field(default_factory=Counter[str])

    def summary(self) -> str:
        noted = "".join(f"\n  {count} x {note}" for note, count in self.notes.most_common())
        return f"{counted(self.cases, 'case')}, {self.broken} of them can't be used" + noted


def check_cases(dataset: Dataset, report: Report) -> Iterator[str]:
    """Yield a line with all errors for each unusable case; count notes."""
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
    """Yield properties that are allowed but may be mistakes."""
    if case.source_prompt == case.target_prompt:
        yield "the source and the target prompt are the same"
    if case.mask is not None and not bool(case.mask.any()):
        yield "the mask marks nothing"
    if case.mask is not None and bool(case.mask.all()):
        yield "the mask leaves no background"
