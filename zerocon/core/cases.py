"""Cases (edit requests) and the interface of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from zerocon.core.hashing import FileHasher

World = Literal[
    "shapes", "photographs"
]  # kinds of pictures in datasets, and in judges' training data


class CaseError(Exception):
    """A case can't be used. It becomes a failed record, and the run continues.

    The message says what is wrong, where, and what would be right.
    """


class DatasetError(Exception):
    """The dataset as a whole can't be used. The run ends at once."""


class DatasetMissingError(DatasetError):
    """The dataset's files are missing or can't be read.

    This says nothing about their content, so a finished run's results stay valid.
    """


@dataclass(frozen=True, eq=False)
class Case:
    """One edit request. Its pictures are RGB, 0..1, and of equal size."""

    id: str
    image: Tensor  # [3, y, x]
    source_prompt: str
    target_prompt: str
    instruction: str = ""
    edit_type: str = ""  # the dataset's id; PIE-Bench: "0" .. "9"
    edit_name: str = ""  # its name, such as "change object"
    blend_words: tuple[str, str] | None = None  # (in the source prompt, in the target prompt)
    mask: Tensor | None = None  # [1, y, x], 1 = region to edit, 0 = background
    ground_truth: Tensor | None = None  # [3, y, x]
    source_scene: dict[str, Any] | None = None  # only in the shapes world: Scene.to_json()
    target_scene: dict[str, Any] | None = None
    # Whether a picture, uint8 [64, 64, 3], shows the edit; None if the dataset can't decide.
    edit_done: Callable[[NDArray[np.uint8]], bool] | None = None
    notes: tuple[str, ...] = field(default=())  # deviations of the files from the expected format


class Dataset(Protocol):
    """Cases by id, in a fixed order. `load` raises CaseError for a broken case."""

    name: str
    world: World

    @property
    def ids(self) -> Sequence[str]: ...

    def load(self, case_id: str) -> Case: ...

    @property
    def fingerprint(self) -> str:
        """The start of `identity`, for display and storage."""
        ...

    def identity(self, hasher: FileHasher) -> str:
        """A digest of the chosen cases: their texts and the contents of their files.

        Raises DatasetMissingError if the dataset's folder is gone.
        """
        ...

    def case_digest(self, case_id: str, hasher: FileHasher) -> str:
        """As `identity`, of one case. A missing file is part of the digest, not an error."""
        ...
