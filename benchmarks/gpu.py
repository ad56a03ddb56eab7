"""Stable Diffusion 1.5's arithmetic on one GPU, against diffusers' pix2pix-zero pipeline.

    python benchmarks/gpu.py --seconds 600 --out gpu.json
    python benchmarks/gpu.py --tiny --device cpu --seconds 600 --out tiny.json

The networks have the published architecture and random weights, made where they run: a picture
takes the same operations as with the published weights. Each part writes its result before the next
one begins; a part that fails or that the time does not suffice for says so and ends nothing.
`--tiny` is the whole script on a network of a few thousand weights.

Times of 50 steps come from runs of fewer, at two numbers of steps: what does not depend on them
(captions, autoencoder) and each step's own. `pipeline_whole` and the compiled parts check this by
whole runs.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from zerocon.backbones.compiling import PATIENCE
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.size import Size as PixelSize
from zerocon.inversions.base import Inversion, Trajectory
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.regularized import RegularizedInversion
from zerocon.losses.base import Losses
from zerocon.losses.cross_attention import CrossAttention
from zerocon.losses.patch_nce import PatchNCE
from zerocon.methods.zerocon import ZeroCon
from zerocon.runs.peers import pix2pix_zero_pipeline
from zerocon.shapes.tokenizer import write_clip_tokenizer

SOURCE, TARGET = "a big red circle on a gray background", "a big blue square on a gray background"
GUIDANCE = 7.5
STEPS = 50
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

Result = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """What is built: Stable Diffusion 1.5's sizes, or the same blocks much narrower."""

    latent: int = 64
    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: int = 8
    text: int = 768
    text_layers: int = 12
    vae: tuple[int, ...] = (128, 256, 512, 512)
    groups: int = 32
    layers: int = 2
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    best: int = 16  # the batch at which the compiled passes are measured
    matrix: int = 8192


REAL = Size()
TINY = Size(16, (8, 16), 2, 32, 2, (8, 8, 8, 8), 4, 1, (1, 2), 2, 256)


@dataclass
class Bench:
    """What the parts share: the machine, the size, the time left, and what was found so far."""

    device: torch.device
    dtype: str
    size: Size
    deadline: float
    out: Path
    steps: int = STEPS
    backend: str = "inductor"
    found: Result = field(default_factory=dict[str, Any])
    kept: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def pixels(self) -> int:
        return self.size.latent * 8

    def write(self) -> None:
        # Python's JSON has no bytes for what can't be a number.
        text = json.dumps(self.found, indent=1, default=str)
        spare = self.out.with_suffix(".part")
        spare.write_text(text + "\n")
        spare.replace(self.out)

    def parts(self, dtype: str) -> Parts:
        """The networks, made once for each precision."""
        name = f"parts/{dtype}"
        if name not in self.kept:
            self.kept[name] = build(self.size, self.device, DTYPES[dtype])
        return self.kept[name]

    def backbone(self, *, new: bool = False) -> StableDiffusionBackbone:
        if new or "backbone" not in self.kept:
            parts = self.parts(self.dtype)
            side = self.pixels, self.pixels
            args = "random", self.device, DTYPES[self.dtype], "random", side
            self.kept["backbone"] = StableDiffusionBackbone(parts, *args)
        return self.kept["backbone"]


def build(size: Size, device: torch.device, dtype: torch.dtype) -> Parts:
    torch.manual_seed(0)
    tokenizer = write_clip_tokenizer(Path(tempfile.mkdtemp(prefix="zerocon-bench-")))
    end = int(tokenizer.eos_token_id)
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=size.text,
        intermediate_size=4 * size.text,
        num_hidden_layers=size.text_layers,
        num_attention_heads=max(1, size.text // 64),
        max_position_embeddings=77,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    attended = len(size.unet) - 1  # levels with attention; the coarsest has none
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # no copy in single precision is ever made
    try:
        with torch.device(device):
            unet = UNet2DConditionModel(
                sample_size=size.latent,
                block_out_channels=size.unet,
                cross_attention_dim=size.text,
                attention_head_dim=size.heads,
                norm_num_groups=size.groups,
                layers_per_block=size.layers,
                down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",),
                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attended,
            )
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=size.vae,
                layers_per_block=2,
                norm_num_groups=size.groups,
                sample_size=8 * size.latent,
            )
            encoder = CLIPTextModel(text)
    finally:
        torch.set_default_dtype(before)
    modules: list[nn.Module] = [unet, vae, encoder]
    for module in modules:
        nn.Module.to(module, device, dtype).requires_grad_(requires_grad=False).eval()
    return Parts(
        vae=vae,
        unet=unet,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**SCHEDULE),
    )


# --- ours -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Editor:
    """A method with its inversion, at the settings that the configs have for this model."""

    inversion: Inversion
    make: Callable[[int], ZeroCon]

    def prepare(self, backbone: StableDiffusionBackbone, count: int) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(count, 3, *backbone.size, generator=generator)
        texts = (backbone.embed([text] * count) for text in (SOURCE, TARGET, ""))
        return backbone.encode(images), Conditions(*texts), Draws(0, [str(i) for i in range(count)])

    def invert(self, backbone: StableDiffusionBackbone, given: Any, steps: int) -> Trajectory:
        clean, conditions, draws = given
        return self.inversion(backbone, clean, conditions, steps, draws)

    def edit(
        self, backbone: StableDiffusionBackbone, given: Any, found: Trajectory, steps: int
    ) -> Tensor:
        _, conditions, draws = given
        return self.make(steps)(backbone, found, conditions, draws)

    def whole(self, backbone: StableDiffusionBackbone, count: int, steps: int) -> Tensor:
        """From pictures to pictures."""
        given = self.prepare(backbone, count)
        found = self.invert(backbone, given, steps)
        return backbone.decode(self.edit(backbone, given, found, steps))


def zerocon(steps: int) -> ZeroCon:
    losses = Losses(xa=CrossAttention(weight=0.1), cut=PatchNCE(weight=1.0))
    return ZeroCon(losses, steps=steps, guidance=GUIDANCE)


def pix2pix_zero(steps: int) -> ZeroCon:
    return ZeroCon(
        Losses(xa=CrossAttention(weight=0.1)),
        steps=steps,
        guidance=GUIDANCE,
        source_guidance=GUIDANCE,
        update="per_branch",
    )


OURS = {
    "zerocon": Editor(DDIMInversion(), zerocon),
    "pix2pix_zero": Editor(RegularizedInversion(), pix2pix_zero),
}


def measured(bench: Bench, editor: Editor, count: int, steps: tuple[int, int] = (2, 5)) -> Result:
    """Seconds of a batch at `bench.steps` steps, from two smaller numbers of steps."""
    backbone = bench.backbone()
    given = editor.prepare(backbone, count)
    few, more = steps
    found = {n: editor.invert(backbone, given, n) for n in steps}
    inverting = [seconds(bench, lambda n=n: editor.invert(backbone, given, n)) for n in steps]
    editing = [seconds(bench, lambda n=n: editor.edit(backbone, given, found[n], n)) for n in steps]
    ends = seconds(bench, lambda: backbone.decode(editor.prepare(backbone, count)[0]))
    slopes = [(late - early) / (more - few) for early, late in (inverting, editing)]
    total = ends + sum(
        late + (bench.steps - more) * slope
        for (_, late), slope in zip((inverting, editing), slopes, strict=True)
    )
    return {
        "batch": count,
        "seconds_per_inversion_step": slopes[0],
        "seconds_per_edit_step": slopes[1],
        "seconds_of_captions_and_autoencoder": ends,
        "seconds_of_a_batch_at_all_steps": total,
        "images_per_minute": 60 * count / total,
    }


# --- clocks ---------------------------------------------------------------------------------------


def wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(bench: Bench, action: Callable[[], object], repeats: int = 1) -> float:
    """The median of some repeats."""
    times: list[float] = []
    for _ in range(repeats):
        wait(bench)
        started = time.perf_counter()
        action()
        wait(bench)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def clear(bench: Bench) -> None:
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(bench: Bench) -> float | None:
    if bench.device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated() / 2**30


# --- the parts ------------------------------------------------------------------------------------


def machine(bench: Bench) -> Result:
    said: Result = {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "size": vars(bench.size),
    }
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(0)
        said |= {"card": card.name, "memory_gib": card.total_memory / 2**30}
        said |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return said


def peak(bench: Bench) -> Result:
    """The card's matrix product, in the networks' precision: the larger of two sizes."""
    best: dict[int, float] = {}
    for side in (bench.size.matrix, 2 * bench.size.matrix):
        a, b = (torch.randn(side, side, device=bench.device).to(DTYPES[bench.dtype]) for _ in "ab")
        for _ in range(3):
            a @ b
        once = seconds(bench, lambda a=a, b=b: [a @ b for _ in range(5)], 3) / 5
        best[side] = 2 * side**3 / once / 1e12
    return {"tflops": max(best.values()), "by_side": best}


def operations(bench: Bench) -> Result:
    """Operations of a picture's inversion step and edit step, counted as they run uncompiled."""
    return {name: _operations_of(bench, editor) for name, editor in OURS.items()}


def _operations_of(bench: Bench, editor: Editor) -> Result:
    backbone = bench.backbone()
    given = editor.prepare(backbone, 1)
    invert, edit, rows = [0, 0], [0, 0], [(0, 0), (0, 0)]
    for i, steps in enumerate((2, 3)):  # the first and the last step may differ from the others
        with FlopCounterMode(display=False) as counted:
            found = editor.invert(backbone, given, steps)
        invert[i] = counted.get_total_flops()
        before = backbone.evaluations.forward, backbone.evaluations.backward
        with FlopCounterMode(display=False) as counted:
            editor.edit(backbone, given, found, steps)
        edit[i] = counted.get_total_flops()
        rows[i] = (
            backbone.evaluations.forward - before[0],
            backbone.evaluations.backward - before[1],
        )
    return {
        "inversion_step": invert[1] - invert[0],
        "edit_step": edit[1] - edit[0],
        "rows_forward_of_a_step": rows[1][0] - rows[0][0],
        "rows_backward_of_a_step": rows[1][1] - rows[0][1],
    }


def _with_share(bench: Bench, name: str, result: Result) -> Result:
    """The result with its share of the card's peak, if both are known."""
    try:
        counted, most = bench.found["operations"][name], bench.found["peak"]["tflops"]
        shares = {
            f"share_of_peak_{which}": counted[f"{which}_step"]
            * result["batch"]
            / result[f"seconds_per_{which}_step"]
            / most
            / 1e12
            for which in ("inversion", "edit")
        }
    except (KeyError, ZeroDivisionError):
        return result
    return result | shares


def _ours(bench: Bench, name: str, count: int, warm: int | None = 2) -> Result:
    clear(bench)
    if warm:
        OURS[name].whole(bench.backbone(), count, warm)
    result = measured(bench, OURS[name], count)
    return _with_share(bench, name, result) | {"peak_gib": peak_gib(bench)}


def eager_zerocon(bench: Bench) -> Result:
    return _ours(bench, "zerocon", bench.size.best)


def eager_pix2pix_zero(bench: Bench) -> Result:
    return _ours(bench, "pix2pix_zero", bench.size.best)


def eager_batches(bench: Bench) -> Result:
    """Other batch sizes; too large ones are named."""
    rows: Result = {}
    for count in bench.size.batches:
        try:
            rows[str(count)] = _ours(bench, "zerocon", count, 1)
        except torch.OutOfMemoryError:
            rows[str(count)] = "does not fit"
        if bench.left < 20:
            break
    return rows


def compiled_zerocon(bench: Bench) -> Result:
    return _compiled(bench, "zerocon")


def compiled_pix2pix_zero(bench: Bench) -> Result:
    return _compiled(bench, "pix2pix_zero")


def _compiled(bench: Bench, name: str) -> Result:
    clear(bench)
    backbone, count = bench.backbone(), bench.size.best
    if "compiled" not in bench.kept:
        bench.kept["compiled"] = backbone.compile(bench.backend)
    # Enough steps for the passes of each; those that come once in a run stay as they are.
    compiling = seconds(bench, lambda: OURS[name].whole(backbone, count, PATIENCE + 3))
    result = _ours(bench, name, count, None)
    bench.found[f"compiled_{name}"] = result | {"compile_seconds": compiling}
    bench.write()
    total = result["seconds_of_a_batch_at_all_steps"]
    if bench.left > 1.3 * total + 20:
        whole = seconds(bench, lambda: OURS[name].whole(backbone, count, bench.steps))
        result |= {"whole_run_seconds": whole, "whole_run_images_per_minute": 60 * count / whole}
    return result | {
        "compile_seconds": compiling,
        "not_compiled_because": bench.kept["compiled"].why_not,
    }


KERNELS = {  # what a kernel's name says of it; the first that fits
    "attention": ("sdpa", "flash", "fmha"),
    "convolutions": ("xmma", "conv"),
    "products": ("nvjet", "gemm", "gemv", "cutlass"),
    "compiled": ("triton",),
}


def profile(bench: Bench) -> Result:
    """Which kernels one of an edit's middle steps spends its time in, as the backbone runs now."""
    backbone, editor, count = bench.backbone(), OURS["zerocon"], bench.size.best
    given = editor.prepare(backbone, count)
    few, more = 2, 6
    seen: list[dict[str, tuple[float, int]]] = []
    for steps in (few, more):  # their difference: the first and the last step are not like others
        found = editor.invert(backbone, given, steps)
        seen.append(_kernels(bench, lambda f=found, n=steps: editor.edit(backbone, given, f, n)))
    early, late = seen
    rows: list[tuple[float, float, str]] = []
    for name, (took, times) in late.items():
        before = early.get(name, (0.0, 0))
        each = (took - before[0]) / (more - few), (times - before[1]) / (more - few)
        rows.append((*each, name[:110]))
    rows.sort(reverse=True)
    kinds = dict.fromkeys([*KERNELS, "other"], 0.0)
    for took, _, name in rows:
        kinds[_kind_of(name)] += took
    return {"milliseconds_of_a_step": sum(kinds.values()), "by_kind": kinds, "kernels": rows[:60]}


def _kernels(bench: Bench, action: Callable[[], object]) -> dict[str, tuple[float, int]]:
    """Milliseconds and calls of each kernel; without a GPU, of each operation."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    cuda = bench.device.type == "cuda"
    with watch(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        action()
        wait(bench)
    found: dict[str, tuple[float, int]] = {}
    for row in seen.key_averages():
        own = row.self_device_time_total if cuda else row.self_cpu_time_total
        found[row.key] = own / 1000, row.count
    return found


def _kind_of(kernel: str) -> str:
    fits = (kind for kind, parts in KERNELS.items() if any(part in kernel for part in parts))
    return next(fits, "other")


def synchronisations(bench: Bench) -> Result:
    """How often a step of the edit and of the inversion waits for the device."""
    if bench.device.type != "cuda":
        return {"note": "only a GPU has them"}
    return {name: _waits(bench, editor) for name, editor in OURS.items()}


def _waits(bench: Bench, editor: Editor) -> Result:
    backbone = bench.backbone()
    given = editor.prepare(backbone, 2)
    counts: dict[str, list[int]] = {"inversion": [], "edit": []}
    where: set[str] = set()
    for steps in (2, 4):
        with _waiting() as seen:
            found = editor.invert(backbone, given, steps)
        counts["inversion"].append(len(seen))
        where |= set(seen)
        with _waiting() as seen:
            editor.edit(backbone, given, found, steps)
        counts["edit"].append(len(seen))
        where |= set(seen)
    each = {name: (late - early) / 2 for name, (early, late) in counts.items()}
    return {"of_a_step": each, "where": sorted(where)}


@contextlib.contextmanager
def _waiting() -> Iterator[list[str]]:
    found: list[str] = []
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [
        f"{_from_package(one.filename)}:{one.lineno}"
        for one in seen
        if "synchroniz" in str(one.message)
    ]


def _from_package(file: str) -> str:
    """The file's path from its package's folder on: the same on every machine."""
    parts = Path(file).parts
    starts = [k for k, part in enumerate(parts) if part in ("zerocon", "torch", "diffusers")]
    return "/".join(parts[starts[-1] :]) if starts else parts[-1]


def memory(bench: Bench) -> Result:
    """zeroCon on one picture in half precision, as the backbone runs now (target: 8 GB)."""
    if bench.device.type != "cuda":
        return {"note": "only a GPU's memory is counted"}
    backbone = bench.backbone()
    for name in ("parts/float16", "pipeline"):
        bench.kept.pop(name, None)
    clear(bench)
    held = torch.cuda.memory_allocated() / 2**30
    OURS["zerocon"].whole(backbone, 1, 3)
    reserved = torch.cuda.max_memory_reserved() / 2**30
    return {"held_before_gib": held, "peak_gib": peak_gib(bench), "reserved_gib": reserved}


def forward_passes(bench: Bench) -> Result:
    """Plain forward passes of the uncompiled U-Net, with two layouts of its weights."""
    backbone, count = bench.backbone(), 2 * bench.size.best
    z = torch.randn(count, 4, bench.size.latent, bench.size.latent, device=bench.device)
    z = z.to(DTYPES[bench.dtype])
    text = backbone.embed([SOURCE]).tokens.expand(count, -1, -1).contiguous()
    found: Result = {"rows": count}
    with torch.no_grad():
        for name in ("contiguous_format", "channels_last"):
            backbone.unet.to(memory_format=getattr(torch, name))
            for _ in range(2):
                backbone.unet(z, 500, text)
            once = seconds(bench, lambda: backbone.unet(z, 500, text), 3)
            found[f"milliseconds_{name}"] = 1000 * once
    return found


# --- theirs ---------------------------------------------------------------------------------------


def their_edit(bench: Bench, pipe: Any, steps: int) -> dict[str, float]:
    """Seconds of one picture's inversion and edit, as the pipeline's own example has them."""
    from PIL import Image

    picture = Image.new("RGB", (bench.pixels, bench.pixels), "gray")
    generator = torch.Generator().manual_seed(0)
    kept: dict[str, Any] = {}

    def invert() -> None:
        found = pipe.invert(SOURCE, image=picture, num_inference_steps=steps, generator=generator)
        kept["latents"] = found.latents

    def edit() -> None:
        embeds = {n: pipe.get_embeds([t]) for n, t in (("source", SOURCE), ("target", TARGET))}
        pipe(
            SOURCE,
            source_embeds=embeds["source"],
            target_embeds=embeds["target"],
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            latents=kept["latents"],
            generator=generator,
        )

    return {"inversion": seconds(bench, invert), "edit": seconds(bench, edit)}


def their_pipeline(bench: Bench) -> Result:
    """One picture at a time, as it works, in each half precision."""
    names = ("bfloat16", "float16") if bench.device.type == "cuda" else (bench.dtype,)
    rows: Result = {}
    for dtype in names:
        try:
            rows[dtype] = _theirs(bench, dtype)
        except Exception:  # noqa: BLE001 - a precision that it can't work in is a result
            rows[dtype] = {"error": traceback.format_exc()[-1500:]}
        bench.found["their_pipeline"] = rows
        bench.write()
    return rows | {"best": _best(rows)}


def _best(rows: Result) -> str | None:
    speeds = {name: row.get("images_per_minute", 0) for name, row in rows.items()}
    return max(speeds, key=lambda name: speeds[name]) if any(speeds.values()) else None


def _theirs(bench: Bench, dtype: str) -> Result:
    clear(bench)
    # Its pipeline replaces the processors of its U-Net, so it has one of its own.
    pipe = pix2pix_zero_pipeline(build(bench.size, bench.device, DTYPES[dtype]), SCHEDULE)
    bench.kept["pipeline"] = {dtype: pipe}
    their_edit(bench, pipe, 1)
    few, more = 1, 4
    early, late = (their_edit(bench, pipe, steps) for steps in (few, more))
    slopes = {name: (late[name] - early[name]) / (more - few) for name in late}
    total = sum(late[name] + (bench.steps - more) * slopes[name] for name in late)
    return {
        "seconds_per_step": slopes,
        "seconds_of_a_picture_at_all_steps": total,
        "images_per_minute": 60 / total,
        "peak_gib": peak_gib(bench),
    }


def pipeline_whole(bench: Bench) -> Result:
    """A whole run of the pipeline in its best precision."""
    best = bench.found["their_pipeline"]["best"]
    pipe = bench.kept.get("pipeline", {}).get(best)
    pipe = pipe or pix2pix_zero_pipeline(build(bench.size, bench.device, DTYPES[best]), SCHEDULE)
    took = their_edit(bench, pipe, bench.steps)
    total = sum(took.values())
    return {"precision": best, "seconds": took, "images_per_minute": 60 / total}


# --- Stable Diffusion XL's size -------------------------------------------------------------------


def sdxl_memory(bench: Bench) -> Result:
    """zeroCon's passes on one latent of 1024 pixels through SDXL's U-Net (target: 24 GB)."""
    from zerocon.backbones.sdxl import SDXLBackbone, XLParts

    bench.kept.clear()
    clear(bench)
    dtype, real = DTYPES[bench.dtype], bench.size is not TINY
    side = 128 if real else TINY.latent
    torch.set_default_dtype(dtype)
    try:
        with torch.device(bench.device):
            unet = UNet2DConditionModel(
                sample_size=side,
                block_out_channels=(320, 640, 1280) if real else (8, 16, 16),
                down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
                up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
                layers_per_block=2,
                transformer_layers_per_block=(1, 2, 10) if real else (1, 1, 2),
                attention_head_dim=(5, 10, 20) if real else 2,
                norm_num_groups=32 if real else TINY.groups,
                cross_attention_dim=2048,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            )
    finally:
        torch.set_default_dtype(torch.float32)
    small = build(TINY, bench.device, dtype)  # the conditions are made here, not by its encoder
    parts: Any = XLParts(
        **(vars(small) | {"unet": unet}),
        text_encoder_2=cast("Any", small.text_encoder),
        tokenizer_2=small.tokenizer,
    )
    pixels = PixelSize(8 * side, 8 * side)
    backbone: Any = SDXLBackbone(parts, "xl", bench.device, dtype, "xl", pixels)
    texts = [_xl_text(bench.device, dtype, seed) for seed in range(3)]
    z = torch.randn(1, 4, side, side, device=bench.device, dtype=dtype)
    given = z, Conditions(*texts), Draws(0, ["a"])
    cuda = bench.device.type == "cuda"
    weights = torch.cuda.memory_allocated() / 2**30 if cuda else None
    clear(bench)
    found = OURS["zerocon"].invert(backbone, given, 2)
    took = seconds(bench, lambda: OURS["zerocon"].edit(backbone, given, found, 2))
    return {"weights_gib": weights, "peak_gib": peak_gib(bench), "seconds_per_step": took / 2}


def _xl_text(device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    from zerocon.core.conditions import Condition

    generator = torch.Generator().manual_seed(seed)
    tokens, pooled = (torch.randn(s, generator=generator) for s in ((1, 77, 2048), (1, 1280)))
    return Condition(tokens.to(device, dtype), pooled.to(device, dtype))


# --- all of it ------------------------------------------------------------------------------------

# In the order of importance, with the seconds that a part needs on a large GPU.
PARTS: dict[str, tuple[Callable[[Bench], Result], float]] = {
    "machine": (machine, 0),
    "peak": (peak, 5),
    "operations": (operations, 10),
    "eager_zerocon": (eager_zerocon, 15),
    "their_pipeline": (their_pipeline, 15),
    "synchronisations": (synchronisations, 5),
    "memory": (memory, 5),
    "compiled_zerocon": (compiled_zerocon, 200),
    "profile": (profile, 10),
    "pipeline_whole": (pipeline_whole, 20),
    "eager_pix2pix_zero": (eager_pix2pix_zero, 20),
    "compiled_pix2pix_zero": (compiled_pix2pix_zero, 200),
    "forward_passes": (forward_passes, 10),
    "sdxl_memory": (sdxl_memory, 20),
    "eager_batches": (eager_batches, 20),
}


class OutOfTimeError(BaseException):
    """The budget is used up. Not an `Exception`, so that no part takes it for its own."""


def run_part(bench: Bench, name: str) -> None:
    action, needs = PARTS[name]
    if bench.left < needs:
        result: Result = {"skipped": f"{bench.left:.0f} s are left; it needs about {needs:.0f}"}
    else:
        started = time.monotonic()
        result = _guarded(bench, name, action)
        result["part_seconds"] = round(time.monotonic() - started, 2)
    bench.found[name] = result
    bench.found["seconds_left"] = round(bench.left, 1)
    bench.write()
    print(f"{name}: {json.dumps(result, default=str)[:1500]}", flush=True)


def _guarded(bench: Bench, name: str, action: Callable[[Bench], Result]) -> Result:
    signal.alarm(max(1, int(bench.left)))
    try:
        return action(bench)
    except OutOfTimeError:
        return bench.found.get(name, {}) | {"error": "the time was used up within this part"}
    except Exception:  # noqa: BLE001 - no part may end the others
        return bench.found.get(name, {}) | {"error": traceback.format_exc()[-4000:]}
    finally:
        signal.alarm(0)


def _out_of_time(*_: object) -> None:
    raise OutOfTimeError


def summary(found: Result) -> Result:
    """The numbers that the goals are about."""
    said: Result = {}
    with contextlib.suppress(KeyError, TypeError):
        best = found["their_pipeline"]["best"]
        whole = found.get("pipeline_whole", {}).get("images_per_minute")
        theirs = whole or found["their_pipeline"][best]["images_per_minute"]
        said["pipeline_images_per_minute"] = theirs
        for name in OURS:
            for how in ("eager", "compiled"):
                speed = found.get(f"{how}_{name}", {}).get("images_per_minute")
                if speed:
                    said[f"{how}_{name}_times_the_pipeline"] = speed / theirs
    for name in OURS:
        share = found.get(f"compiled_{name}", {}).get("share_of_peak_edit")
        if share:
            said[f"compiled_{name}_share_of_peak"] = share
    return said


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600, help="budget, from the start on")
    options.add_argument("--out", type=Path, default=Path("gpu.json"))
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--dtype", choices=sorted(DTYPES), help="bfloat16; float32 on a CPU")
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--batch", type=int, help="pictures at once where only one size is used")
    options.add_argument("--tiny", action="store_true", help="the whole script on a small network")
    options.add_argument("--backend", default="inductor", help="of torch.compile")
    options.add_argument("--parts", nargs="+", choices=sorted(PARTS), help="default: all")
    given = options.parse_args()
    size = TINY if given.tiny else REAL
    if given.batch:
        size = Size(**(vars(size) | {"best": given.batch}))
    bench = Bench(
        device=torch.device(given.device),
        dtype=given.dtype or ("float32" if given.device == "cpu" else "bfloat16"),
        size=size,
        deadline=time.monotonic() + given.seconds,
        out=given.out,
        steps=given.steps,
        backend=given.backend,
    )
    bench.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, _out_of_time)
    for name in given.parts or PARTS:
        run_part(bench, name)
    bench.found["summary"] = summary(bench.found)
    bench.write()
    print(json.dumps(bench.found["summary"], indent=1))


if __name__ == "__main__":
    main()
