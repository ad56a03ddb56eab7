"""The data that flows: one edit request, and a batch of them."""

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

World = Literal["shapes", "photographs"]  # what a dataset's pictures are of, and judges know


class CaseError(Exception):
    """One case can't be used. It becomes a failed record; the run goes on.

    The message says what is wrong, where, and what would be right.
    """


class DatasetError(Exception):
    """The dataset as a whole can't be used. The run ends at once."""


class DatasetMissingError(DatasetError):
    """The dataset's files are not where they should be, or can't be read.

    So nothing can be said about their content; a finished run's results are none the worse.
    """


@dataclass(frozen=True, eq=False)
class Case:
    """One edit request, ready to use: pictures are square, RGB, 0..1, all of one side."""

    id: str
    image: Tensor  # [3, side, side]
    source_prompt: str
    target_prompt: str
    instruction: str = ""
    edit_type: str = ""  # the dataset's own id; PIE-Bench: "0" .. "9"
    edit_name: str = ""  # the same in words: "change object"
    blend_words: tuple[str, str] | None = None  # (in the source prompt, in the target prompt)
    mask: Tensor | None = None  # [1, side, side], 1 = region to edit, 0 = background
    ground_truth: Tensor | None = None  # [3, side, side]
    source_scene: dict[str, Any] | None = None  # the shapes world only: Scene.to_json()
    target_scene: dict[str, Any] | None = None
    # Does a picture, uint8 [64, 64, 3], show the edit? None where the dataset can't tell.
    edit_done: Callable[[NDArray[np.uint8]], bool] | None = None
    notes: tuple[str, ...] = field(default=())  # how the file differed from what was expected


class Dataset(Protocol):
    """Cases by id, in a fixed order. `load` raises CaseError for a case that is broken."""

    name: str
    world: World

    @property
    def ids(self) -> Sequence[str]: ...

    def load(self, case_id: str) -> Case: ...

    @property
    def fingerprint(self) -> str:
        """The start of `identity`, to be shown and stored."""
        ...

    def identity(self, hasher: FileHasher) -> str:
        """A digest of the chosen cases: their texts and the content of every file they use.

        DatasetMissingError when the dataset's folder is not there any more.
        """
        ...

    def case_digest(self, case_id: str, hasher: FileHasher) -> str:
        """The same of one case. A file that is missing is part of it, not an error."""
        ...
