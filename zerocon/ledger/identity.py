"""Everything that a run's numbers depend on, as one value with a digest.

It is computed when a run begins and stored as `inputs.json`. It is computed again and compared
whenever the run is continued, its results are printed, or its records are reused for another
run. If it has changed, the results are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from zerocon.core.cases import CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.hashing import FileHasher, RememberedDigests, digest_of
from zerocon.core.memory import cache_folder
from zerocon.core.naming import content_of, digest
from zerocon.ledger.code import code_digests
from zerocon.ledger.named_files import named_files

SHORT = 16  # characters of a digest
MOST_NAMED = 3  # changes listed in a message
PACKAGE = "zerocon"  # the package's own code, among `code`

Parts = Mapping[str, str]  # what -> digest


class InputsChangedError(ConfigError):
    """Something that a run's numbers depend on has changed."""


@runtime_checkable
class HasParts(Protocol):
    """A dataset that gives a digest for each part of a case."""

    def case_parts(self, case_id: str, hasher: FileHasher) -> dict[str, str]: ...


@dataclass(frozen=True)
class Identity:
    settings: Parts  # each group of settings
    cases: Mapping[str, Parts]  # each case's texts and files
    files: Mapping[str, Parts]  # the files at each place that settings name
    code: Parts  # of the package, and of each file of the user's own classes
    dataset: str = ""  # its folder, for messages
    unchecked: Sequence[str] = field(default=())  # what could not be read, and why

    @property
    def digest(self) -> str:
        return digest_of([self.settings, self.cases, self.files, self.code])

    @property
    def dataset_fingerprint(self) -> str:
        """The start of a digest of all cases, equal to the dataset's own fingerprint."""
        whole = [[case_id, digest_of(parts)] for case_id, parts in self.cases.items()]
        return digest_of(whole)[:SHORT]

    def to_json(self) -> bytes:
        content = asdict(self)
        del content["unchecked"], content["dataset"]
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Identity:
        return cls(**json.loads(data))


def identity_of(
    config: Mapping[str, Any], dataset: Dataset | str, hasher: FileHasher | None = None
) -> Identity:
    """The identity of a run with these settings and this dataset.

    `dataset` may also be a message that says why the dataset can't be read. Digests of files
    are remembered, so the next call takes milliseconds.
    """
    hasher = hasher or RememberedDigests(cache_folder() / "digests")
    files, missing = _files(config, hasher)
    unreadable = [dataset] if isinstance(dataset, str) else []
    return Identity(
        settings=digests_of_settings(config),
        cases={} if isinstance(dataset, str) else _cases(dataset, hasher),
        files=files,
        code=code_digests(config),
        dataset=str(getattr(dataset, "root", "")),
        unchecked=[*unreadable, *missing],
    )


def digests_of_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each group of settings that affects numbers."""
    content = content_of(config)
    return {group: digest({group: value}) for group, value in content.items() if group != "name"}


def _cases(dataset: Dataset, hasher: FileHasher) -> dict[str, Parts]:
    if isinstance(dataset, HasParts):
        return {case_id: dataset.case_parts(case_id, hasher) for case_id in dataset.ids}
    if hasattr(dataset, "case_digest"):
        return {i: {"content": dataset.case_digest(i, hasher)} for i in dataset.ids}
    return {case_id: _loaded_parts(dataset, case_id) for case_id in dataset.ids}


def _loaded_parts(dataset: Dataset, case_id: str) -> Parts:
    """Digests of a loaded case, for datasets that provide none."""
    try:
        case = dataset.load(case_id)
    except CaseError as error:
        return {"error": digest({"error": str(error)})}
    pictures = {"picture": case.image, "mask": case.mask, "ground truth": case.ground_truth}
    texts = {"source": case.source_prompt, "target": case.target_prompt, "more": case.instruction}
    return {"texts": digest(texts)} | {
        name: hashlib.sha256(picture.numpy().tobytes()).hexdigest()[:16]
        for name, picture in pictures.items()
        if picture is not None
    }


def _files(
    config: Mapping[str, Any], hasher: FileHasher
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The digests of all files that settings name, and the places that could not be read."""
    found: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    for place, files in named_files(config).items():
        try:
            found[place] = {name: hasher(file) for name, file in _named(files)}
        except OSError as error:
            missing.append(f"{place} can't be read ({error.strerror})")
        else:
            if not files:
                missing.append(f"{place} is not there")
                del found[place]
    return found, missing


def _named(files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with its path relative to their common folder."""
    top = Path(*_common([file.parent.parts for file in files]))
    for file in files:
        yield file.relative_to(top).as_posix(), file


def _common(paths: Sequence[tuple[str, ...]]) -> list[str]:
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def changes(before: Identity, now: Identity) -> list[str]:
    """Describe the inputs that have changed; those that can't be read now are left out.

    The package's own code is not included: `runner.on_code_change` handles it.
    """
    return [
        *(f"the settings of {group}" for group in _differing(before.settings, now.settings)),
        *_changed_cases(before, now),
        *_changed_files(before.files, now.files),
    ]


def changed_own_code(before: Identity, now: Identity) -> list[str]:
    """The files of the user's own classes that changed."""
    files = _differing(_without_package(before.code), _without_package(now.code))
    return [f"the code in {file}" for file in files]


def _without_package(code: Parts) -> dict[str, str]:
    return {name: digest for name, digest in code.items() if name != PACKAGE}


def _differing(before: Parts, now: Parts) -> list[str]:
    names = dict.fromkeys([*before, *now])
    return [name for name in names if before.get(name) != now.get(name)]


def _changed_cases(before: Identity, now: Identity) -> list[str]:
    if not now.cases and now.unchecked:
        return []
    names = dict.fromkeys([*before.cases, *now.cases])
    pairs = ((name, before.cases.get(name), now.cases.get(name)) for name in names)
    return [_about_case(*pair) for pair in pairs if pair[1] != pair[2]]


def _about_case(case_id: str, before: Parts | None, now: Parts | None) -> str:
    if now is None:
        return f"case {case_id} is not in the dataset any more"
    if before is None:
        return f"case {case_id} is new in the dataset"
    from zerocon.datasets.identity import difference

    return difference(case_id, before, now)


def _changed_files(before: Mapping[str, Parts], now: Mapping[str, Parts]) -> list[str]:
    """Changed files, at the places that could be read both times."""
    return [
        f"{place}: {name} {_happened(before[place].get(name), now[place].get(name))}"
        for place in before
        if place in now
        for name in _differing(before[place], now[place])
    ]


def _happened(before: str | None, now: str | None) -> str:
    if now is None:
        return "is gone"
    return "is new" if before is None else "changed"


def refusal(directory: object, changed: Sequence[str], dataset: str, remedy: str) -> str:
    """The message for a run whose inputs changed: which, where, and what to do."""
    named = "; ".join(changed[:MOST_NAMED])
    more = f"; and {len(changed) - MOST_NAMED} more changes" if len(changed) > MOST_NAMED else ""
    where = f" (dataset: {dataset})" if dataset else ""
    return f"{directory} was made with inputs that have changed: {named}{more}{where}. {remedy}"
