"""The pictures that a finished run was asked to edit, found again in its dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from zerocon.config.bind import build
from zerocon.config.settings import stored_config
from zerocon.core.cases import CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.pictures import case_pictures
from zerocon.core.size import Size
from zerocon.ledger.identity import identity_of
from zerocon.ledger.run_directory import RunDirectory

Lookup = Callable[[str], Mapping[str, Image.Image]]


def requests_of(directory: Path, overrides: Sequence[str] = ()) -> Lookup:
    """From a case's id to its source, truth and mask; ConfigError if they can't be had."""
    dataset = _dataset(RunDirectory(directory), overrides)

    def pictures(case: str) -> Mapping[str, Image.Image]:
        try:
            return case_pictures(dataset.load(case))
        except CaseError:
            return {}

    return pictures


def _dataset(run: RunDirectory, overrides: Sequence[str]) -> Dataset:
    config = stored_config(run.path, overrides)
    edited = [record for record in run.records() if record.image is not None]
    if "dataset" not in config or not run.begun or not edited:
        raise ConfigError(f"{run} does not tell which dataset's pictures it edited")
    with run.picture(edited[0]) as picture:
        pixels = Size.of(picture)
    dataset: Dataset = build(config, "dataset", later=("pixels",))(pixels=pixels)
    now = identity_of(config, dataset).dataset_fingerprint
    if run.inputs is None or now != run.inputs.dataset_fingerprint:
        raise ConfigError(f"{dataset.name} is not what it was when {run} was made")
    return dataset
