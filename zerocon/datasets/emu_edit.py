"""Emu Edit's test set in the Hugging Face hub's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from zerocon.core.cases import Case
from zerocon.core.size import Size
from zerocon.datasets.base import Choice, FileDataset, Row, gather, listed, optional_text, text
from zerocon.datasets.parquet import PictureTable, of_split, parquet_files

HINT = "Emu Edit's test set has data/validation-….parquet and data/test-….parquet"
NEEDED = ("instruction", "image", "task", "idx", "input_caption", "output_caption")


class EmuEdit(FileDataset):
    """The rows of one split; a case's id is `<task>-<idx>`, its edit type the task.

    Required columns: `instruction`, `image`, `task` (add, remove, background, …), `idx`,
    `input_caption`, `output_caption`; `split` and `hash` are not read. If both captions are
    equal, as in some published rows, the case's notes say so.
    """

    name = "emu_edit"
    type_names = None

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        split: str = "validation",
        **chosen: Unpack[Choice],
    ) -> None:
        root = Path(root)
        files = of_split(parquet_files(root, HINT), root, split)
        self._table = PictureTable(files, NEEDED, (), ("image",))
        rows = [(f"{row['task']}-{row['idx']}", row) for row in self._table.rows]
        super().__init__(root, pixels, root, listed(rows), **chosen)

    def _edit_type(self, entry: Row) -> str:
        return str(entry["task"] or "")

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"table": self._table.place(entry, self.root)}

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            edit_type=lambda: text(entry, "task"),
            image=lambda: self._decoded(self._table.picture(entry, "image"), "image", notes),
            source_prompt=lambda: text(entry, "input_caption").strip(),
            target_prompt=lambda: text(entry, "output_caption").strip(),
            instruction=lambda: optional_text(entry, "instruction").strip(),
        )
        if fields["source_prompt"] == fields["target_prompt"]:
            notes.append("the captions before and after the edit are the same")
        return Case(id=case_id, edit_name=fields["edit_type"], notes=tuple(notes), **fields)
