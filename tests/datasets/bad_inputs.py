"""Deliberately broken inputs by name: a function that writes each, and its message.

In `CASES` one case is broken (a `CaseError`), and the case "good" stays usable. In `WHOLE` the
whole dataset is broken (a `DatasetError`). Each function takes the folder to write to.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from parquet_files import PICTURE, cell, encoded, write_parquet
from PIL import Image

from zerocon.core.cases import Dataset
from zerocon.core.size import Size
from zerocon.datasets.celebamask_hq import CelebAMaskHQ
from zerocon.datasets.emu_edit import EmuEdit
from zerocon.datasets.folder import Folder
from zerocon.datasets.magicbrush import MagicBrush
from zerocon.datasets.pairs import Pairs
from zerocon.datasets.pie_bench import PieBench
from zerocon.datasets.pie_bench_pp import PieBenchPP
from zerocon.datasets.ti2i import TI2I

SIZE = Size.square(16)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
PHOTO = Image.fromarray(PIXELS)
PNG, JPEG, GIF = (encoded(PHOTO, kind) for kind in ("PNG", "JPEG", "GIF"))

ENTRY: dict[str, Any] = {
    "image_path": "1_change_object_80/good.png",
    "original_prompt": "a [cat] on a sofa",
    "editing_prompt": "a [dog] on a sofa",
    "editing_instruction": "",
    "editing_type_id": "1",
    "blended_word": "cat dog",
    "mask": [0, 512],
}

Build = Callable[[Path], Dataset]


def claims(side: int) -> bytes:
    """A PNG of about 60 bytes that declares `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def pie(root: Path, **mapping: object) -> Dataset:
    """A folder in PIE-Bench's format with the given cases and a good one."""
    return pie_text(root, json.dumps({**mapping, "good": ENTRY}))


def pie_text(root: Path, text: str | bytes) -> Dataset:
    pictures = root / "annotation_images" / "1_change_object_80"
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / "good.png").write_bytes(PNG)
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (root / "mapping_file.json").write_bytes(data)
    return PieBench(root, SIZE)


def field(name: str, value: object) -> Build:
    return lambda root: pie(root, bad={**ENTRY, name: value})


def without(name: str) -> Build:
    return lambda root: pie(root, bad={k: v for k, v in ENTRY.items() if k != name})


def file(name: str, data: bytes) -> Build:
    """The bad case's picture has these bytes."""

    def build(root: Path) -> Dataset:
        dataset = pie(root, bad={**ENTRY, "image_path": name})
        (root / "annotation_images" / name).write_bytes(data)
        return dataset

    return build


def link(to: Callable[[Path], Path], name: str = "bad.png", path: str = "bad.png") -> Build:
    """`annotation_images/<name>` is a link; the bad case's picture is at `path`."""

    def build(root: Path) -> Dataset:
        dataset = pie(root, bad={**ENTRY, "image_path": path})
        (root / "annotation_images" / name).symlink_to(to(root))
        return dataset

    return build


def secrets(root: Path) -> Path:
    return root.parent / "outside"


def pipe(root: Path) -> Dataset:
    dataset = pie(root, bad={**ENTRY, "image_path": "bad.png"})
    os.mkfifo(root / "annotation_images" / "bad.png")
    return dataset


def floats(root: Path) -> Dataset:
    dataset = pie(root, bad={**ENTRY, "image_path": "bad.tif"})
    Image.new("F", (8, 8)).save(root / "annotation_images" / "bad.tif")
    return dataset


HALF = "\ud83d"  # an unpaired surrogate, which JSON can contain

# name -> (what builds it, what is said about the case "bad" or whichever is broken)
CASES: dict[str, tuple[Build, str]] = {
    # pictures
    "a PNG cut short": (file("bad.png", PNG[: len(PNG) // 2]), "damaged or cut short"),
    "a JPEG cut short": (file("bad.jpg", JPEG[: len(JPEG) // 2]), "damaged or cut short"),
    "a GIF cut short": (file("bad.gif", GIF[: len(GIF) // 2]), "damaged or cut short"),
    "a PNG's header only": (file("bad.png", PNG[:30]), "not a picture|damaged or cut short"),
    "a PNG with bytes changed": (
        file("bad.png", PNG[:60] + b"\xff" * 40 + PNG[100:]), "damaged or cut short"),
    "no bytes": (file("bad.png", b""), "bad.png: the file is empty"),
    "a text": (file("bad.png", b"a cat"), "not a picture in a known format"),
    "a page": (file("bad.svg", b"<svg xmlns='x'/>"), "not a picture in a known format"),
    "a program for a printer": (
        file("bad.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
        "not a picture in a known format"),
    "a bomb": (file("bad.png", claims(30_000)), "more than 64 million pixels; make it smaller"),
    "a bigger bomb": (file("bad.png", claims(2_000_000)), "more than 64 million pixels"),
    "numbers with fractions": (floats, "mode F can't be used; save it as 8-bit RGB"),
    "a pipe": (pipe, "bad.png: this is a named pipe, not a picture"),
    # paths
    "no such picture": (field("image_path", "none.png"), "none.png: there is no such file"),
    "a folder as picture": (field("image_path", "1_change_object_80"), "this is a folder"),
    "an absolute path": (field("image_path", "/etc/hostname"), "must be relative"),
    "a path upwards": (field("image_path", "../../outside/secret.png"), "leads out of"),
    "a path up and down": (field("image_path", "a/../../../outside/secret.png"), "leads out of"),
    "a link out": (link(lambda root: secrets(root) / "secret.png"), "leads out of"),
    "a folder's link out": (link(secrets, "way", "way/secret.png"), "leads out of"),
    "a link to itself": (link(lambda _: Path("bad.png")), "can't be read .Too many levels"),
    "a link to nothing": (link(lambda _: Path("nothing.png")), "no such file"),
    "a path with a zero byte": (field("image_path", "a\0.png"), "must be relative"),
    "a path too long": (field("image_path", "a" * 5000), "can't be read|can't be followed"),
    "half a character in a path": (field("image_path", f"a{HALF}.png"), "unpaired surrogate"),
    "a home folder": (field("image_path", "~/secret.png"), "there is no such file"),
    "another alphabet, no file": (field("image_path", "猫.png"), "猫.png: there is no such file"),
    "a number as path": (field("image_path", 7), "image_path is 7; it must be a text"),
    "a list as path": (field("image_path", ["a.png"]), r"image_path is \['a.png'\]"),
    "no path": (without("image_path"), "image_path is None; it must be a text"),
    # prompts
    "an empty prompt": (field("original_prompt", ""), "original_prompt is ''"),
    "a blank prompt": (field("editing_prompt", " \n"), "editing_prompt is "),
    "only brackets": (field("editing_prompt", "[ ]"), "it is empty without brackets"),
    "no prompt": (without("editing_prompt"), "editing_prompt is None"),
    "a null prompt": (field("original_prompt", None), "original_prompt is None"),
    "a number as prompt": (field("original_prompt", 3.5), "original_prompt is 3.5"),
    "half a character": (field("editing_prompt", f"a {HALF} cat"), "has an unpaired surrogate"),
    "a list as instruction": (field("editing_instruction", []), r"editing_instruction is \[\]"),
    "a number as words": (field("blended_word", 3), "blended_word is 3; it must be a text"),
    # edit types
    "a type there is not": (field("editing_type_id", "12"), "'12'; it must be one of 0, 1"),
    "no type": (without("editing_type_id"), "editing_type_id is ''"),
    "a list as type": (field("editing_type_id", [1]), r"editing_type_id is '\[1\]'"),
    # masks
    "an odd mask": (field("mask", [3]), "1 numbers; starts and lengths must come in pairs"),
    "a negative mask": (field("mask", [0, 1, -5, 2]), r"run 1 is \(-5, 2\); none may be negative"),
    "a mask past the end": (field("mask", [262143, 2]), "ends beyond the 512x512 = 262144 pixels"),
    "a mask far past the end": (field("mask", [10**30, 1]), "ends beyond"),
    "fractions in a mask": (field("mask", [0, 1.5]), "entry 1 is 1.5; it must be a whole number"),
    "truths in a mask": (field("mask", [True, 1]), "entry 0 is True"),
    "a text as mask": (field("mask", "0 512"), "expected a list of whole numbers, got str"),
    "an object as mask": (field("mask", {"0": 512}), "expected a list of whole numbers, got dict"),
    "a mask in a mask": (field("mask", [[0, 512]]), r"entry 0 is \[0, 512\]|1 numbers"),
    # entries
    "a list as entry": (lambda r: pie(r, bad=[1]), r"case 'bad' is \[1\]; expected an object"),
    "nothing as entry": (lambda r: pie(r, bad=None), "case 'bad' is None; expected an object"),
    "an id twice": (
        lambda r: pie_text(r, f'{{"bad": {json.dumps(ENTRY)}, "good": {json.dumps(ENTRY)}, '
                              f'"bad": {json.dumps(ENTRY)}}}'),
        "case 'bad' is there more than once"),
    "a field twice": (
        lambda r: pie_text(r, json.dumps({"bad": ENTRY, "good": ENTRY}).replace(
            '"mask"', '"editing_prompt": "x", "mask"', 1)),
        "editing_prompt is <is there more than once"),
    "an empty id": (lambda r: pie(r, **{"": ENTRY}), "has the id ''; it must be a text"),
    "half a character in an id": (lambda r: pie(r, **{HALF: ENTRY}), "an id with an unpaired"),
}  # fmt: skip


def mapping(data: bytes) -> Build:
    return lambda root: pie_text(root, data)


def linked_mapping(root: Path) -> Dataset:
    pie(root)
    (root / "mapping_file.json").unlink()
    (root / "mapping_file.json").symlink_to(secrets(root) / "mapping_file.json")
    return PieBench(root, SIZE)


def folder_mapping(root: Path) -> Dataset:
    (root / "mapping_file.json").mkdir(parents=True)
    return PieBench(root, SIZE)


WHOLE: dict[str, tuple[Build, str]] = {
    "no folder": (lambda r: PieBench(r / "none", SIZE), "mapping_file.json can't be read"),
    "a file as folder": (lambda r: PieBench(secrets(r) / "secret.png", SIZE), "can't be read"),
    "a folder as mapping file": (folder_mapping, "can't be read .Is a directory"),
    "a mapping file's link out": (linked_mapping, "'mapping_file.json' leads out of"),
    "an empty mapping file": (mapping(b""), "is not valid JSON"),
    "a mapping file cut short": (mapping(b'{"a": {"image_pa'), "is not valid JSON"),
    "a mapping file in Latin-1": (mapping('{"é": {}}'.encode("latin-1")), "is not valid JSON"),
    "a mapping file without end": (mapping(b"[" * 100_000), "is not valid JSON"),
    "a list as mapping file": (mapping(b"[1]"), "must contain a non-empty object"),
    "a mapping file of nothing": (mapping(b"{}"), "must contain a non-empty object"),
}

PP_COLUMNS = {"id": "VARCHAR", "image": PICTURE, "source_prompt": "VARCHAR",
              "target_prompt": "VARCHAR", "mask": "VARCHAR"}  # fmt: skip
PP_ROW: dict[str, Any] = {"id": "good", "image": cell(PHOTO), "source_prompt": "a cat",
                          "target_prompt": "a dog", "mask": "0 512"}  # fmt: skip


def table(columns: dict[str, str] = PP_COLUMNS, **changes: Any) -> Build:
    """PIE-Bench++ with a good row and a changed one."""

    def build(root: Path) -> Dataset:
        rows = [{**PP_ROW, "id": "bad", **changes}, PP_ROW]
        write_parquet(root / "1_change_object_80" / "V1-0.parquet", columns, rows)
        return PieBenchPP(root, SIZE)

    return build


def table_of_bytes(data: Callable[[bytes], bytes]) -> Build:
    def build(root: Path) -> Dataset:
        file = write_parquet(root / "V1-0.parquet", PP_COLUMNS, [PP_ROW])
        file.write_bytes(data(file.read_bytes()))
        return PieBenchPP(root, SIZE)

    return build


def twice(root: Path) -> Dataset:
    write_parquet(root / "1_a" / "V1-0.parquet", PP_COLUMNS, [PP_ROW, PP_ROW])
    return PieBenchPP(root, SIZE)


def linked_table(root: Path) -> Dataset:
    write_parquet(secrets(root) / "V1-0.parquet", PP_COLUMNS, [PP_ROW])
    root.mkdir(exist_ok=True)
    (root / "V1-0.parquet").symlink_to(secrets(root) / "V1-0.parquet")
    return PieBenchPP(root, SIZE)


def listing(name: str, data: str | bytes) -> Build:
    """A list of pairs beside good.png."""

    def build(root: Path) -> Dataset:
        root.mkdir(exist_ok=True)
        (root / "good.png").write_bytes(PNG)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return Pairs(root, SIZE, file=name)

    return build


def ti2i(data: str) -> Build:
    def build(root: Path) -> Dataset:
        (root / "cat").mkdir(parents=True)
        (root / "cat" / "a.png").write_bytes(PNG)
        (root / "imnetr-ti2i.yaml").write_text(data)
        return TI2I(root, SIZE)

    return build


def celeba(row: str, mask: bytes = PNG) -> Build:
    def build(root: Path) -> Dataset:
        for place, data in (("CelebA-HQ-img/3.jpg", JPEG), ("prompts.csv", b""),
                            ("CelebAMask-HQ-mask-anno/0/00003_hair.png", mask)):  # fmt: skip
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(data)
        lines = f"id,image,source,target,parts\nbad,{row}\ngood,3,a,b,\n"
        (root / "prompts.csv").write_text(lines)
        return CelebAMaskHQ(root, SIZE)

    return build


def brush(root: Path) -> Dataset:
    columns = {"img_id": "VARCHAR", "turn_index": "INTEGER", "source_img": PICTURE,
               "instruction": "VARCHAR"}  # fmt: skip
    row = {"img_id": "1", "source_img": cell(PHOTO), "instruction": "x"}
    rows = [{**row, "turn_index": turn} for turn in (None, 1)]
    write_parquet(root / "data" / "dev-0.parquet", columns, rows)
    return MagicBrush(root, SIZE)


LAUGHS = "\n".join(
    [
        "- init_img: cat/a.png\n  junk:\n  - &a0 [ha]",
        *(f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)),
        "  target_prompts: [*a19]",
    ]
)
HEADER = "image,source,target\n"
GOOD_LINE = "good.png,a,b\n"

CASES |= {
    "a cell with half a picture": (
        table(image={"bytes": PNG[:200], "path": "a.png"}), "damaged or cut short"),
    "a cell without picture": (table(image=None), "the cell is empty"),
    "a cell with a path only": (
        table(image={"bytes": None, "path": "/etc/hostname"}), "the cell is empty"),
    "a cell with a bomb": (
        table(image={"bytes": claims(30_000), "path": "a.png"}), "more than 64 million pixels"),
    "an empty prompt's cell": (table(target_prompt=None), "target_prompt is None"),
    "words as mask": (table(mask="all of it"), "mask is 'all of it'; it must be whole numbers"),
    "a mask's cell past the end": (table(mask="262144 1"), "ends beyond the 512x512"),
    "two rows of one id": (twice, "there more than once"),
    "a row without id": (table(id=None), "has the id None"),
    "a turn without number": (brush, "turn_index is None; it must be 1 or more"),
    "a line with too many fields": (
        listing("l.csv", HEADER + "bad.png,a,b,c\n" + GOOD_LINE), "more fields than the header"),
    "a line with too few fields": (
        listing("l.csv", HEADER + "bad.png,a\n" + GOOD_LINE), "fewer fields than the header"),
    "a line upwards": (
        listing("l.csv", HEADER + "../outside/secret.png,a,b\n" + GOOD_LINE), "leads out of"),
    "a line that is no JSON": (
        listing("l.jsonl", '{"image": \n{"image": "good.png", "source": "a", "target": "b"}'),
        "case 'line 1' is not valid JSON"),
    "a line that is no object": (
        listing("l.jsonl", '[1]\n{"image": "good.png", "source": "a", "target": "b"}'),
        "case 'line 1' is not a JSON object"),
    "a mask outside": (
        listing("l.csv", "image,source,target,mask\ngood.png,a,b,../outside/secret.png\n"),
        "leads out of"),
    "targets that are no list": (
        ti2i("- init_img: cat/a.png\n  target_prompts: a dog\n"), "expected a list of texts"),
    "a target that is a number": (
        ti2i("- init_img: cat/a.png\n  target_prompts: [3]\n"), "target_prompt is 3"),
    "an entry that is a text": (ti2i("- cat/a.png\n"), "expected an object"),
    "a picture above the folder": (
        ti2i("- init_img: ../outside/secret.png\n  target_prompts: [a]\n"), "leads out of"),
    "a list that grows when it is looked at": (ti2i(LAUGHS), "target_prompt is "),
    "a face that is no number": (celeba("1e5,a,b,hair"), "must be a face's number"),
    "a face that is no place": (celeba("../../outside/secret,a,b,"), "must be a face's number"),
    "a part's mask cut short": (celeba("3,a,b,hair", PNG[:99]), "damaged or cut short"),
}  # fmt: skip

WHOLE |= {
    "half a table": (table_of_bytes(lambda d: d[: len(d) // 2]), "not a complete Parquet file"),
    "an empty table": (table_of_bytes(lambda _: b""), "not a complete Parquet file"),
    "a text as table": (table_of_bytes(lambda _: b"id,image\n"), "not a complete Parquet file"),
    "a table's link out": (linked_table, "leads out of"),
    "no table": (lambda r: PieBenchPP(r, SIZE), "is not a folder|contains no .parquet file"),
    "a table without a column": (
        table({k: v for k, v in PP_COLUMNS.items() if k != "target_prompt"}),
        "has no column 'target_prompt'; required: id, image"),
    "another dataset's table": (
        lambda r: (table()(r), EmuEdit(r, SIZE, split="V1"))[1], "has no column 'instruction'"),
    "a list without a column": (listing("l.csv", "image,source\na,b\n"), "no column 'target'"),
    "a list of nothing": (listing("l.csv", ""), "has no column 'image'"),
    "a list with a header only": (listing("l.csv", HEADER), "has no lines"),
    "a list in Latin-1": (listing("l.csv", (HEADER + "é,a,b").encode("latin-1")), "UTF-8"),
    "an open quote": (listing("l.csv", HEADER + 'good.png,"a,b\n'), "is not valid CSV after line"),
    "a list of another kind": (listing("l.xlsx", b"PK"), "must end in .csv, .jsonl or .parquet"),
    "no YAML": (ti2i("- [a"), "is not valid YAML"),
    "YAML that runs a program": (
        ti2i("- !!python/object/apply:os.system ['true']\n"), "is not valid YAML"),
    "an object as YAML": (ti2i("init_img: a\n"), "must contain a list"),
    "no list": (lambda r: TI2I(r, SIZE), "a TI2I folder has one of"),
}  # fmt: skip


def special(make: Callable[[Path], None]) -> Build:
    """The bad case's picture is made by a function of its path."""

    def build(root: Path) -> Dataset:
        dataset = pie(root, bad={**ENTRY, "image_path": "bad.png"})
        make(root / "annotation_images" / "bad.png")
        return dataset

    return build


def saved(mode: str, **options: Any) -> Build:
    return special(lambda path: Image.new(mode, (8, 8)).save(path, format="TIFF", **options))


def sparse(size: int) -> Callable[[Path], None]:
    """A sparse file of the given size."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def many_frames(path: Path) -> None:
    """A TIFF whose directory refers to itself and whose strips are beyond its end."""
    data = encoded(PHOTO, "TIFF")
    path.write_bytes(data[:4] + struct.pack("<I", 8) + b"\xff\xff" + b"\xff" * 400)


def listed_by(write: Callable[[Path], object], name: str, kind: Callable[[Path], Dataset]) -> Build:
    """The list of a dataset is made by a function of its path."""

    def build(root: Path) -> Dataset:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name)
        return kind(root)

    return build


def mask_pipe(root: Path) -> Dataset:
    dataset = celeba("3,a,b,hair")(root)
    place = root / "CelebAMask-HQ-mask-anno" / "0" / "00003_hair.png"
    place.unlink()
    os.mkfifo(place)
    return dataset


def captions(data: Callable[[Path], object]) -> Build:
    def build(root: Path) -> Dataset:
        brush(root)
        data(root / "global_descriptions.json")
        return MagicBrush(root, SIZE)

    return build


def painted(mask: Image.Image) -> Build:
    def build(root: Path) -> Dataset:
        columns = {"img_id": "VARCHAR", "turn_index": "INTEGER", "source_img": PICTURE,
                   "mask_img": PICTURE, "instruction": "VARCHAR"}  # fmt: skip
        row = {"img_id": "1", "source_img": cell(PHOTO), "instruction": "x"}
        good = Image.new("1", (64, 64), 1)
        rows = [{**row, "turn_index": 1, "mask_img": cell(mask)},
                {**row, "turn_index": 2, "mask_img": cell(good)}]  # fmt: skip
        write_parquet(root / "data" / "dev-0.parquet", columns, rows)
        return MagicBrush(root, SIZE)

    return build


def png_with(chunk: bytes) -> bytes:
    """The photo's PNG with an additional chunk of a wrong length or checksum."""
    return PNG[:33] + chunk + PNG[33:]


PIE, PP, PAIRS = "mapping_file.json", "1_a/V1-0.parquet", "pairs.csv"
GOOD_JSON = '{"image": "good.png", "source": "a", "target": "b"}'
PIPE: Callable[[Path], object] = os.mkfifo


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


CASES |= {
    "a link to a device": (special(zero), "leads out of"),
    "a sparse terabyte": (special(sparse(2**40)), "has more than 1073741824 bytes"),
    "a megabyte of zeros": (special(sparse(2**20)), "not a picture in a known format"),
    "32 bits a pixel": (saved("I"), "32 bits a pixel with a sign can't be used"),
    "32 bits with fractions": (saved("F"), "mode F can't be used"),
    "a TIFF that leads nowhere": (special(many_frames), "not a picture|damaged or cut short"),
    "a PNG's chunk too long": (
        file("bad.png", png_with(struct.pack(">I", 2**31 - 1) + b"tEXt")), "damaged or cut short"),
    "a PNG's checksum wrong": (
        file("bad.png", PNG[:29] + b"\0\0\0\0" + PNG[33:]),
        "damaged or cut short|not a picture"),
    "a PNG of no size": (file("bad.png", claims(0)), "not a picture|damaged or cut short"),
    "a JPEG's end only": (file("bad.jpg", JPEG[-20:]), "not a picture"),
    "a PPM's huge header": (file("bad.ppm", b"P6 99999 99999 255\n"), "more than 64 million"),
    "a PPM without numbers": (file("bad.ppm", b"P6 x y z\n"), "not a picture|damaged"),
    "a BMP's header only": (file("bad.bmp", encoded(PHOTO, "BMP")[:54]), "damaged|not a picture"),
    "a WebP cut short": (file("bad.webp", encoded(PHOTO, "WEBP")[:40]), "damaged|not a picture"),
    "a page of a book": (file("bad.png", b"%PDF-1.4\n%%EOF"), "not a picture"),
    "an archive": (file("bad.png", b"PK\x05\x06" + b"\0" * 18), "not a picture"),
    "a mask that is a pipe": (mask_pipe, "this is a named pipe, not a picture"),
    "a part's mask that is a text": (celeba("3,a,b,hair", b"hair"), "not a picture"),
    "a part there is not": (celeba("3,a,b,beard"), "'beard' is none of skin"),
    "a face there is not": (celeba("77,a,b,"), "no such file"),
    "a mask there is not": (celeba("3,a,b,nose"), "has none of the parts nose"),
    "a mask that shows no region": (painted(PHOTO), "the region is unknown"),
    "a mask of another size": (
        painted(PHOTO.resize((32, 32))), "has 32x32 pixels, the source picture 64x64"),
    "a mask of another shape": (
        painted(Image.new("1", (64, 32))), "do not have the same shape as the picture's 64x64"),
    "a field of JSON twice": (
        listing("l.jsonl", '{"image": "good.png", "source": "a", "source": "b", "target": "c"}'),
        "source is <is there more than once"),
    "a line in Latin-1": (
        listing("l.jsonl", b'{"image": "\xe9"}\n' + GOOD_JSON.encode()),
        "case 'line 1' is not valid JSON"),
    "a picture that is a number": (
        listing("l.jsonl", '{"image": 3, "source": "a", "target": "b"}\n' + GOOD_JSON),
        "has the id None"),
    "a mask that is a list": (
        listing("l.jsonl", '{"image": "good.png", "id": "bad", "source": "a", "target": "b", '
                           '"mask": []}\n' + GOOD_JSON), r"mask is \[\]; it must be a text"),
    "a ground truth that is none": (
        listing("l.csv", "image,source,target,ground_truth\ngood.png,a,b,l.csv\n"),
        "l.csv: this is not a picture"),
    "a prompt of blanks": (listing("l.csv", HEADER + 'good.png,"  ",b\n'), "source is '  '"),
    "an infinite mask": (field("mask", [float("inf"), 1]), "entry 0 is inf"),
    "a mask of nothing at all": (field("mask", [None, None]), "entry 0 is None"),
}  # fmt: skip

WHOLE |= {
    "a pipe as mapping file": (
        listed_by(PIPE, PIE, lambda r: PieBench(r, SIZE)), "it is a named pipe, not a file"),
    "a pipe as list": (listed_by(PIPE, PAIRS, lambda r: Pairs(r, SIZE)), "it is a named pipe"),
    "a pipe as table": (listed_by(PIPE, PP, lambda r: PieBenchPP(r, SIZE)), "is a named pipe"),
    "a pipe as YAML": (
        listed_by(PIPE, "wild.yaml", lambda r: TI2I(r, SIZE, file="wild.yaml")),
        "it is a named pipe"),
    "a pipe as captions": (captions(PIPE), "it is a named pipe"),
    "a pipe as table of pairs": (
        listed_by(PIPE, "l.parquet", lambda r: Pairs(r, SIZE, file="l.parquet")),
        "is a named pipe"),
    "a device as mapping file": (
        listed_by(zero, PIE, lambda r: PieBench(r, SIZE)), "leads out of"),
    "a device as root": (lambda r: PieBench("/dev/zero", SIZE), "can't be read"),
    "nothing as root": (lambda r: Folder("/dev/null", SIZE, "a", "b"), "is not a folder"),
    "a device as folder of tables": (lambda r: EmuEdit("/dev/null", SIZE), "is not a folder"),
    "a folder as table": (
        listed_by(Path.mkdir, PP, lambda r: PieBenchPP(r, SIZE)), "Is a directory"),
    "a folder as list": (listed_by(Path.mkdir, PAIRS, lambda r: Pairs(r, SIZE)), "Is a directory"),
    "a sparse mapping file": (
        listed_by(sparse(2**40), PIE, lambda r: PieBench(r, SIZE)), "more than 1073741824 bytes"),
    "a sparse table": (
        listed_by(sparse(2**30), PP, lambda r: PieBenchPP(r, SIZE)), "not a complete Parquet file"),
    "zeros as mapping file": (mapping(b"\0" * 1000), "is not valid JSON"),
    "half a mark of UTF-8": (mapping(b"\xef\xbb{}"), "is not valid JSON"),
    "a number of a million digits": (mapping(b"9" * 10**6), "is not valid JSON"),
    "objects in objects": (mapping(b'{"a":' * 100_000), "is not valid JSON"),
    "a text as mapping file": (mapping(b'"a"'), "must contain a non-empty object"),
    "a list with a column twice": (
        listing("l.csv", "image,source,source,target\na,b,c,d\n"), "2 columns called 'source'"),
    "a list in UTF-16": (listing("l.csv", (HEADER + GOOD_LINE).encode("utf-16")), "UTF-8"),
    "a list of zeros": (listing("l.csv", b"\0" * 100), "has no column 'image'|not valid CSV"),
    "a list of bytes": (listing("l.csv", b"\xff\xfe\x00\x01" * 50), "not text in UTF-8"),
    "a list upwards": (lambda r: Pairs(r, SIZE, file="../outside/l.csv"), "leads out of"),
    "an absolute list": (lambda r: Pairs(r, SIZE, file="/etc/hostname.csv"), "must be relative"),
    "prompts of another kind": (
        lambda r: CelebAMaskHQ(r, SIZE, prompts="prompts.txt"), "must end in .csv, .jsonl"),
    "a table of text pairs": (listing("l.parquet", GOOD_JSON), "not a complete Parquet file"),
    "captions that are no JSON": (
        captions(lambda p: p.write_text("{")), "global_descriptions.json is not valid JSON"),
    "a split there is not": (
        lambda r: (brush(r), MagicBrush(r, SIZE, split="tset"))[1], "split 'tset': no file"),
    "YAML of zeros": (ti2i("\0\0\0"), "is not valid YAML"),
    "YAML that is empty": (ti2i(""), "must contain a list"),
    "YAML with an open quote": (ti2i('- init_img: "a\n' * 50), "is not valid YAML"),
    "a folder without pictures": (
        listed_by(lambda p: p.write_text("x"), "a.txt", lambda r: Folder(r, SIZE, "a", "b")),
        "contains no picture"),
}  # fmt: skip
