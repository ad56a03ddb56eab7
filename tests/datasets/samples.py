"""A small dataset of each format, and a change of each of its parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from parquet_files import PICTURE, cell, write_parquet
from PIL import Image

from zerocon.core.size import Size
from zerocon.datasets.base import FileDataset
from zerocon.datasets.celebamask_hq import CelebAMaskHQ
from zerocon.datasets.emu_edit import EmuEdit
from zerocon.datasets.folder import Folder
from zerocon.datasets.magicbrush import MagicBrush
from zerocon.datasets.pairs import Pairs
from zerocon.datasets.pie_bench import PieBench
from zerocon.datasets.pie_bench_pp import PieBenchPP
from zerocon.datasets.shapes import ShapesPIE
from zerocon.datasets.ti2i import TI2I
from zerocon.shapes.benchmark import write_benchmark

SIZE = Size.square(16)
PHOTO = Image.effect_noise((32, 32), 90).convert("RGB")
WHITE = Image.new("L", (32, 32), 255)


@dataclass(frozen=True)
class Sample:
    """How to write a dataset, how to open it, and its parts: file -> (what to find, put there).

    A picture's bytes are changed at its end; that is what None stands for.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], FileDataset]
    parts: Mapping[str, tuple[str, str] | None]


def put(file: Path, picture: Image.Image = PHOTO) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    return file


def _pie(root: Path) -> None:
    entries = {
        name: {"image_path": f"1_x/{name}.png", "original_prompt": "a [cat]", "mask": [0, 900],
               "editing_prompt": "a [dog]", "editing_type_id": "1", "blended_word": "cat dog"}
        for name in ("a", "b")
    }  # fmt: skip
    for name in entries:
        put(root / "annotation_images" / "1_x" / f"{name}.png")
    (root / "mapping_file.json").write_text(json.dumps(entries))


def _pie_pp(root: Path) -> None:
    columns = {"id": "VARCHAR", "image": PICTURE, "source_prompt": "VARCHAR",
               "target_prompt": "VARCHAR"}  # fmt: skip
    rows = [{"id": i, "image": cell(PHOTO), "source_prompt": "a cat", "target_prompt": "a dog"}
            for i in "ab"]  # fmt: skip
    write_parquet(root / "1_change_object_80" / "V1-0.parquet", columns, rows)


def _emu(root: Path) -> None:
    columns = {"instruction": "VARCHAR", "image": PICTURE, "task": "VARCHAR", "idx": "BIGINT",
               "input_caption": "VARCHAR", "output_caption": "VARCHAR"}  # fmt: skip
    rows = [{"instruction": "x", "image": cell(PHOTO), "task": "add", "idx": i,
             "input_caption": "a", "output_caption": "b"} for i in range(2)]  # fmt: skip
    write_parquet(root / "data" / "validation-0.parquet", columns, rows)


def _brush(root: Path) -> None:
    columns = {"img_id": "VARCHAR", "turn_index": "INTEGER", "source_img": PICTURE,
               "instruction": "VARCHAR"}  # fmt: skip
    rows = [{"img_id": "1", "turn_index": i, "source_img": cell(PHOTO), "instruction": "x"}
            for i in (1, 2)]  # fmt: skip
    write_parquet(root / "data" / "dev-0.parquet", columns, rows)
    captions = {"1": {"1-input.png": "a cat", "1-output1.png": "a dog", "1-output2.png": "an owl"}}
    (root / "global_descriptions.json").write_text(json.dumps(captions))


def _ti2i(root: Path) -> None:
    put(root / "panda" / "cartoon.png")
    (root / "imnetr-ti2i.yaml").write_text(
        "- init_img: /ImageNetR-TI2I/Panda/cartoon.png\n  target_prompts: [a dog, an owl]\n"
    )


def _celeba(root: Path) -> None:
    put(root / "CelebA-HQ-img" / "3.jpg")
    put(root / "CelebAMask-HQ-mask-anno" / "0" / "00003_hair.png", WHITE)
    (root / "prompts.csv").write_text("image,source,target,parts\n3,a,a dog,hair hat\n3,a,b,\n")


def _pairs(root: Path) -> None:
    put(root / "a.png")
    put(root / "m.png", WHITE)
    put(root / "t.png")
    lines = "image,source,target,mask,ground_truth\na.png,a cat,a dog,m.png,t.png\n"
    (root / "pairs.csv").write_text(lines)


def _folder(root: Path) -> None:
    for name in ("a.png", "deep/b.png"):
        put(root / name)


@cache
def _drawn() -> TemporaryDirectory[str]:
    """ShapesPIE, rendered once, as that takes two seconds."""
    folder = TemporaryDirectory()
    write_benchmark(Path(folder.name) / "set", 20, "test")
    return folder


def _shapes(root: Path) -> None:
    copytree(Path(_drawn().name) / "set", root)


FIRST = "0_random_140/000000000000.png"
SAMPLES: dict[str, Sample] = {
    "pie_bench": Sample(_pie, lambda r: PieBench(r, SIZE), {
        "annotation_images/1_x/a.png": None, "mapping_file.json": ("[0, 900]", "[0, 901]")}),
    "pie_bench_pp": Sample(_pie_pp, lambda r: PieBenchPP(r, SIZE), {
        "1_change_object_80/V1-0.parquet": ("a dog", "a fox")}),
    "emu_edit": Sample(_emu, lambda r: EmuEdit(r, SIZE), {
        "data/validation-0.parquet": ("add", "bad")}),
    "magicbrush": Sample(_brush, lambda r: MagicBrush(r, SIZE), {
        "data/dev-0.parquet": ("x", "y"), "global_descriptions.json": ("an owl", "an elk")}),
    "ti2i": Sample(_ti2i, lambda r: TI2I(r, SIZE), {
        "panda/cartoon.png": None, "imnetr-ti2i.yaml": ("an owl", "an elk")}),
    "celebamask_hq": Sample(_celeba, lambda r: CelebAMaskHQ(r, SIZE), {
        "CelebA-HQ-img/3.jpg": None, "CelebAMask-HQ-mask-anno/0/00003_hair.png": None,
        "prompts.csv": ("a dog", "a fox")}),
    "pairs": Sample(_pairs, lambda r: Pairs(r, SIZE), {
        "a.png": None, "m.png": None, "t.png": None, "pairs.csv": ("a cat", "a fox")}),
    "folder": Sample(_folder, lambda r: Folder(r, SIZE, "a cat", "a dog"), {
        "a.png": None, "deep/b.png": None}),
    "shapes": Sample(_shapes, lambda r: ShapesPIE(20, "test", SIZE, root=r), {
        f"annotation_images/{FIRST}": None, f"ground_truth/{FIRST}": None,
        "mapping_file.json": ("blended_word", "blended_wort")}),
}  # fmt: skip


def change(file: Path, part: tuple[str, str] | None) -> None:
    """Change one part: the same size, another content."""
    data = file.read_bytes()
    if part is None:
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        old, new = (text.encode() for text in part)
        assert old in data
        file.write_bytes(data.replace(old, new, 1))


def written(name: str, root: Path) -> Path:
    SAMPLES[name].write(root)
    return root
