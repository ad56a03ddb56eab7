"""A crew without models: real settings, datasets, records and reports, and pictures made up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from zerocon.config.settings import RunSettings
from zerocon.core.records import Record
from zerocon.core.size import Size
from zerocon.ledger.claims import Chunk
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import save_image
from zerocon.runs.progress import Working

COLUMN = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}


class ToyCrew:
    """Edits a case into noise that depends on its id alone."""

    edited: list[str]  # of all crews, in order

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self.dataset: Any = settings.dataset(pixels=Size.square(64))
        named = {"name": "toy", "fingerprint": "toy"}
        self.origin = Origin(
            name=settings.name,
            case_ids=list(self.dataset.ids),
            columns=[COLUMN],
            protocol="masked",
            backbone=named,
            dataset={"name": self.dataset.name},
            judges={"Toy": "toy"},
            uses_mask=False,
            provenance={},
        )

    def run(self, chunks: Any, record: Any) -> None:
        for chunk in chunks:
            if isinstance(chunk, Chunk):
                record(chunk, [(self._record(i), {}) for i in chunk.case_ids if i in chunk.left])

    def _record(self, case_id: str) -> Record:
        ToyCrew.edited.append(case_id)
        digest = hashlib.sha256(case_id.encode()).digest()
        pixels = np.resize(np.frombuffer(digest, np.uint8), (8, 8, 3))
        picture = Image.fromarray(pixels)
        image, sha256 = save_image(self._settings.directory, case_id, picture)
        metrics = {"psnr": float(pixels.mean())}
        return Record(case=case_id, status="ok", image=image, sha256=sha256, metrics=metrics)

    def working(self) -> list[Working]:
        return []

    def spent(self) -> Sequence[dict[str, Any]]:
        return []

    def close(self) -> None:
        pass
