"""The contact sheet: one PNG with all cases."""

from __future__ import annotations

import io
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFont

from zerocon.core.size import Size
from zerocon.reports.gallery.items import GalleryItem, changed_words, enlarged, shown

SIDE = 144  # the longer one of a picture; smaller pictures are enlarged by whole factors
GAP = 6
BLOCK_GAP = 26  # between neighbouring cases
LINE = 17
MOST_LINES = 8  # of one prompt
_LONGEST_WORD = 1000  # letters that are measured
TEXT = 13
INK, PALE, PAPER, CHANGED, FAILED = "#1c1c1e", "#75757a", "#ffffff", "#0a58ca", "#c0261c"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


Line = list[tuple[str, str]]  # pieces of text with their colours


@dataclass(frozen=True)
class Layout:
    names: Sequence[str]  # of the pictures in a row
    across: int  # cases side by side
    side: int  # no picture is wider or higher
    cell: Size  # which all pictures fit into
    lines: Sequence[Sequence[Line]] = ()  # of each case's texts

    @property
    def block_width(self) -> int:
        return len(self.names) * (self.cell.width + GAP) - GAP

    def row_height(self, row: int) -> int:
        """A row of cases is as high as its longest texts need."""
        texts = self.lines[row * self.across : (row + 1) * self.across]
        return self.cell.height + max(map(len, texts), default=0) * LINE + 2 * GAP + 6

    def corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self.across)
        left = BLOCK_GAP + column * (self.block_width + BLOCK_GAP)
        above = sum(self.row_height(earlier) + GAP for earlier in range(row))
        return left, 2 * BLOCK_GAP + LINE + above


def contact_sheet(items: Sequence[GalleryItem], title: str) -> bytes:
    """PNG bytes: every case's pictures in a row, and its prompts below them."""
    pictures = [shown(item) for item in items]
    layout = _layout(pictures)
    layout = replace(layout, lines=[_texts(item, layout.block_width) for item in items])
    sheet = _paper(layout, len(items), title)
    for index, row in enumerate(pictures):
        _draw_case(sheet, layout, index, row)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _layout(pictures: Sequence[dict[str, Image.Image]]) -> Layout:
    present = {name for row in pictures for name in row}
    order = ("source", "edited", "ground truth", "mask")
    names = [name for name in order if name in present] or ["source"]
    sides = [max(p.size) for row in pictures for p in row.values()]
    smallest = min(sides, default=SIDE)
    side = smallest * max(1, round(SIDE / smallest)) if smallest < SIDE else SIDE
    across = 1 if len(pictures) <= 6 else 2 if len(pictures) <= 60 else 3
    fitted = [_fitted(Size.of(p), side) for row in pictures for p in row.values()]
    cell = Size(
        max((size.height for size in fitted), default=side),
        max((size.width for size in fitted), default=side),
    )
    return Layout(names, across, side, cell)


def _fitted(size: Size, side: int) -> Size:
    """What `enlarged` makes of a picture, or a pixel more."""
    longest = max(size)
    if side >= longest:
        return Size(*(side // longest * edge for edge in size))
    return Size(*(-(-edge * side // longest) for edge in size))


def _paper(layout: Layout, count: int, title: str) -> Image.Image:
    rows = -(-count // layout.across)
    left, top = layout.corner(0)
    width = left + layout.across * (layout.block_width + BLOCK_GAP)
    height = top + sum(layout.row_height(row) + GAP for row in range(rows)) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = _font(18)
    draw.text((left, 14), _clipped(draw, title, font, width - 2 * left), fill=INK, font=font)
    for column in range(min(layout.across, max(count, 1))):
        for place, name in enumerate(layout.names):
            x = layout.corner(column)[0] + place * (layout.cell.width + GAP)
            draw.text((x, top - LINE - 3), name, fill=PALE, font=_font(TEXT))
    return sheet


def _draw_case(
    sheet: Image.Image, layout: Layout, index: int, pictures: dict[str, Image.Image]
) -> None:
    left, top = layout.corner(index)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(layout.names):
        x = left + place * (layout.cell.width + GAP)
        if name in pictures:
            sheet.paste(enlarged(pictures[name], layout.side), (x, top))
        else:
            box = (x, top, x + layout.cell.width - 1, top + layout.cell.height - 1)
            draw.rectangle(box, outline="#d5d5da")
    below = top + layout.cell.height + GAP - 2
    for number, line in enumerate(layout.lines[index]):
        _write(draw, (left, below + number * LINE), line, layout.block_width)


def _texts(item: GalleryItem, width: int) -> list[Line]:
    """The lines below a case: its name, and both prompts or the error, wrapped."""
    record = item.record
    label = " ".join(f"{record.case}  {record.edit_name}".splitlines())
    source, target = changed_words(record.source_prompt, record.target_prompt)
    last = (
        _colored(target) if record.ok else [(" ".join(f"failed: {record.error}".split()), FAILED)]
    )
    return [[(label, PALE)], *_wrapped(_colored(source), width), *_wrapped(last, width)]


def _wrapped(pieces: Line, width: int) -> list[Line]:
    """Break pieces into lines between words; the last of too many lines holds the rest."""
    font = _font(TEXT)
    lines: list[Line] = [[]]
    used = 0.0
    for text, color in pieces:
        for word in re.findall(r"\s+|\S+", text):
            wide = font.getlength(word[:_LONGEST_WORD])
            if used and used + wide > width and len(lines) < MOST_LINES and word.strip():
                lines.append([])
                used = 0.0
            if used or word.strip():
                lines[-1].append((word, color))
                used += wide
            if used > width and len(lines) == MOST_LINES:
                return lines
    return lines


def _colored(pieces: Sequence[tuple[str, bool]]) -> Line:
    return [(text, CHANGED if changed else INK) for text, changed in pieces]


def _write(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    pieces: Sequence[tuple[str, str]],
    width: int,
) -> None:
    """Write one line of coloured pieces, cut at `width`."""
    font, (x, y) = _font(TEXT), corner
    right = x + width
    for text, color in pieces:
        fitting = _clipped(draw, text, font, right - x)
        draw.text((x, y), fitting, fill=color, font=font)
        x += round(draw.textlength(fitting, font=font))
        if fitting != text:
            return


def _clipped(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> str:
    """Return as much of the text as fits, without measuring much more than that."""

    def fits(count: int) -> bool:
        mark = "…" if count < len(text) else ""
        return draw.textlength(f"{text[:count]}{mark}", font=font) <= room

    too_many = 1
    while too_many <= len(text) and fits(too_many):
        too_many *= 2
    if too_many > len(text) and fits(len(text)):
        return text
    fitting = bisect_left(range(1, min(too_many, len(text))), True, key=lambda n: not fits(n))
    return f"{text[:fitting]}…" if fitting else ""


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
