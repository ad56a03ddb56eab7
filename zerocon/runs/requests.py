"""What a finished run was asked to edit: the pictures of its dataset, found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from zerocon.config.bind import build
from zerocon.config.settings import stored_config
from zerocon.core.cases import CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.pictures import case_pictures
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import read_records
from zerocon.runs.verify import side_of

Lookup = Callable[[str], Mapping[str, Image.Image]]


def requests_of(directory: Path, overrides: Sequence[str] = ()) -> Lookup:
    """From a case's id to its source, truth and mask; ConfigError where they are not to be had."""
    dataset = _dataset(directory, overrides)

    def pictures(case: str) -> Mapping[str, Image.Image]:
        try:
            return case_pictures(dataset.load(case))
        except CaseError:
            return {}

    return pictures


def _dataset(directory: Path, overrides: Sequence[str]) -> Dataset:
    config = stored_config(directory, overrides)
    edited = [record for record in read_records(directory) if record.image is not None]
    origin = Origin.read(directory)
    if "dataset" not in config or origin is None or not edited:
        raise ConfigError(f"{directory} does not say which dataset's pictures it edited")
    dataset = build(config, "dataset", later=("side",))(side=side_of(directory, edited[0]))
    if dataset.fingerprint != origin.dataset["fingerprint"]:
        raise ConfigError(f"{dataset.name} has changed since {directory} was made")
    return dataset
