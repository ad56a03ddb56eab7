"""Our edits beside diffusers' pipelines: the same weights, pictures, prompts and settings.

Both sides go from pictures to pictures, in one process and in turn, so that a slow moment of the
machine meets both. diffusers' pix2pix-zero takes one picture at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerocon.backbones.base import is_compiled, uncompiled
from zerocon.backbones.loading import Parts, frozen, load_parts
from zerocon.backbones.sd3 import SD3PartsWithoutT5
from zerocon.backbones.shapes import FLOW, GENERATOR
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.cases import Case
from zerocon.core.pictures import to_uint8
from zerocon.runs.measuring import (
    Passes,
    Took,
    machine,
    operations,
    peak_bytes,
    product_rate,
    timed,
)
from zerocon.runs.progress import Display, Far
from zerocon.runs.worker import edit

Edit = Callable[[Sequence[Case]], object]


@dataclass(frozen=True)
class Contest:
    """One of our edits, and the pipeline that it is measured against."""

    overrides: tuple[str, ...]
    pipeline: str


CONTESTS: Mapping[str, Contest] = {
    "pix2pix_zero": Contest(
        ("method=pix2pix_zero", "inversion=regularized", "direction=word_swap"), "pix2pix_zero"
    ),
    "zerocon": Contest(("method=zerocon", "direction=word_swap"), "pix2pix_zero"),
    "sdedit": Contest(("method=sdedit",), "img2img"),
    "sdedit_flow": Contest(("backbone=shapes_flow", "method=sdedit"), "sd3_img2img"),
}


@dataclass
class Measured:
    """One side on a batch of `pictures`."""

    pictures: int
    forward: int = 0
    backward: int = 0
    peak_bytes: int = 0
    operations: int = 0
    took: list[Took] = field(default_factory=list[Took])

    def each(self, which: str = "busy") -> list[float]:
        """Seconds for one picture, in every repeat."""
        return [getattr(took, which) / self.pictures for took in self.took]

    @property
    def seconds(self) -> float:
        return statistics.median(self.each())

    def said(self) -> dict[str, Any]:
        return {
            "pictures": self.pictures,
            "rows_forward": self.forward / self.pictures,
            "rows_backward": self.backward / self.pictures,
            "peak_mib": round(self.peak_bytes / 2**20, 1),
            "gflop": round(self.operations / self.pictures / 1e9, 2),
            "seconds_a_picture": round(self.seconds, 4),
            "wall_seconds_a_picture": round(statistics.median(self.each("wall")), 4),
            "repeats": [asdict(took) for took in self.took],
        }


@dataclass(frozen=True)
class Faced:
    """Our edit of a batch against the pipeline's, by the picture."""

    name: str
    ours: Measured
    theirs: Measured
    rate: float  # operations a second of a large matrix product

    @property
    def floor(self) -> float:
        """The ratio if all of our operations were as fast as a large matrix product."""
        return self.ours.operations / self.ours.pictures / self.rate / self.theirs.seconds

    @property
    def ratio(self) -> float:
        """Of the medians: below 1, ours is faster."""
        return self.ours.seconds / self.theirs.seconds

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio within one repeat."""
        pairs = zip(self.ours.each(), self.theirs.each(), strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        return min(ratios), max(ratios)

    def said(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "spread": [round(value, 3) for value in self.spread],
            "floor": round(self.floor, 3),
            "ours": self.ours.said(),
            "theirs": self.theirs.said(),
        }


@dataclass(frozen=True)
class Found:
    machine: dict[str, Any]
    settings: dict[str, Any]
    rate: float
    faced: list[Faced]

    def said(self) -> dict[str, Any]:
        faced = [one.said() for one in self.faced]
        rate = {"product_gflops": round(self.rate / 1e9, 1)}
        return {"machine": self.machine | rate, "settings": self.settings, "faced": faced}


@dataclass(frozen=True)
class _Side:
    """What is measured: an edit of some cases by one network."""

    edit: Edit
    network: nn.Module
    cases: Sequence[Case]
    backbone: Any = None  # ours

    def once(self) -> None:
        self.edit(self.cases)


def measure(
    names: Sequence[str],
    steps: int,
    batches: Sequence[int],
    repeats: int,
    overrides: Sequence[str] = (),
) -> Found:
    """Measure the contests `names` at every size of batch, in turn, `repeats` times.

    `overrides`: settings of our side only, such as `method.reevaluate=false`; a backbone's `path`
    holds for both.
    """
    device, dtype = torch.device("cpu"), torch.float32
    sides: dict[tuple[str, str, int], _Side] = {}
    pairs: list[tuple[str, tuple[str, str, int], tuple[str, str, int]]] = []
    for name in names:
        contest = CONTESTS[name]
        size = [f"method.steps={steps}", f"dataset.limit={max(batches)}"]
        settings = compose_settings([*contest.overrides, *size, *overrides], worlds="edit")
        backbone: Any = settings.backbone.load()
        device, dtype = backbone.device, backbone.dtype
        dataset = settings.dataset(pixels=backbone.size)
        cases = [dataset.load(case_id) for case_id in dataset.ids]
        network = getattr(backbone, "unet", None) or backbone.transformer
        theirs = PIPELINES[contest.pipeline](settings, device, dtype)
        for batch in batches:
            mine = ("ours", name, batch)
            sides[mine] = _Side(_ours(settings, backbone), network, cases[:batch], backbone)
            together = batch if theirs.batches else 1
            other = ("theirs", contest.pipeline, together)
            sides.setdefault(other, _Side(theirs.edit, theirs.network, cases[:together]))
            pairs.append((f"{name}, {batch}", mine, other))
    found, rate = _in_turn(sides, device, dtype, repeats)
    return Found(
        machine(device, dtype),
        {"steps": steps, "repeats": repeats, "batches": list(batches)},
        rate,
        [Faced(name, found[mine], found[other], rate) for name, mine, other in pairs],
    )


def _in_turn(
    sides: Mapping[tuple[str, str, int], _Side],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> tuple[dict[tuple[str, str, int], Measured], float]:
    """First each side's rows and memory, which warms it up; then the times.

    No compiled pass is counted, as its operations can't be seen; its memory may be less. Each
    repeat times a large matrix product, too; the second result is the fastest one's rate.
    """
    found: dict[tuple[str, str, int], Measured] = {}
    rates: list[float] = []
    done = [0]

    def far() -> Far:
        total = len(sides) * (repeats + 1)
        return Far(done[0], total, f"{done[0]} of {total} measurements", unit="measurements")

    with Display(far):
        for key, side in sides.items():
            passes = Passes()
            with uncompiled(side.backbone):
                with passes.through(side.network):
                    peak = peak_bytes(device, side.once)
                counted = operations(side.once)
            if is_compiled(side.backbone):
                side.once()
            found[key] = Measured(len(side.cases), passes.forward, passes.backward, peak, counted)
            done[0] += 1
        for _ in range(repeats):
            rates.append(product_rate(device, dtype))
            for key, side in sides.items():
                found[key].took.append(timed(device, side.once))
                done[0] += 1
    return found, max(rates)


def _ours(settings: RunSettings, backbone: Any) -> Edit:
    return lambda cases: to_uint8(edit(settings, backbone, cases))


# --- diffusers' pipelines -------------------------------------------------------------------------


@dataclass(frozen=True)
class Theirs:
    """A pipeline with weights of its own: it may replace the processors of its network."""

    edit: Edit
    network: nn.Module
    batches: bool = True  # whether it takes several pictures at once


def pix2pix_zero_pipeline(parts: Any, schedule: Any) -> Any:
    """diffusers' pix2pix-zero, which it keeps among its deprecated pipelines."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler
    from diffusers.pipelines.deprecated.stable_diffusion_variants import (
        pipeline_stable_diffusion_pix2pix_zero as module,
    )

    kind: Any = module.StableDiffusionPix2PixZeroPipeline
    made = kind(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config(schedule),
        inverse_scheduler=DDIMInverseScheduler.from_config(schedule),
        safety_checker=None,
        feature_extractor=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def _pix2pix_zero(settings: RunSettings, device: torch.device, dtype: torch.dtype) -> Theirs:
    parts = _placed(load_parts(_folder(settings, GENERATOR), kind=Parts), device, dtype)
    pipe, method = pix2pix_zero_pipeline(parts, parts.scheduler.config), settings.method

    def edited(cases: Sequence[Case]) -> None:
        for case in cases:
            generator = torch.Generator().manual_seed(settings.seed)
            noisy = pipe.invert(
                case.source_prompt,
                image=_pil(case),
                num_inference_steps=method.steps,
                generator=generator,
            ).latents
            texts = (pipe.get_embeds([text]) for text in (case.source_prompt, case.target_prompt))
            source, target = texts
            pipe(
                case.source_prompt,
                source_embeds=source,
                target_embeds=target,
                num_inference_steps=method.steps,
                guidance_scale=_guidance(settings),
                latents=noisy,
                generator=generator,
            )

    return Theirs(edited, parts.unet, batches=False)


def _img2img(settings: RunSettings, device: torch.device, dtype: torch.dtype) -> Theirs:
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

    parts = _placed(load_parts(_folder(settings, GENERATOR), kind=Parts), device, dtype)
    kind: Any = StableDiffusionImg2ImgPipeline
    pipe = kind(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config(parts.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return Theirs(_from_pictures(pipe, settings), parts.unet)


def _sd3_img2img(settings: RunSettings, device: torch.device, dtype: torch.dtype) -> Theirs:
    from diffusers import StableDiffusion3Img2ImgPipeline

    folder = _folder(settings, FLOW)
    parts: Any = _placed(load_parts(folder, kind=SD3PartsWithoutT5), device, dtype)
    given: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None} | vars(parts)
    pipe: Any = StableDiffusion3Img2ImgPipeline(**given)
    pipe.set_progress_bar_config(disable=True)
    return Theirs(_from_pictures(pipe, settings), parts.transformer)


def _from_pictures(pipe: Any, settings: RunSettings) -> Edit:
    def edited(cases: Sequence[Case]) -> None:
        method: Any = settings.method
        pipe(
            [case.target_prompt for case in cases],
            image=[_pil(case) for case in cases],
            strength=method.strength,
            num_inference_steps=method.steps,
            guidance_scale=_guidance(settings),
            generator=torch.Generator().manual_seed(settings.seed),
        )

    return edited


PIPELINES: Mapping[str, Callable[[RunSettings, torch.device, torch.dtype], Theirs]] = {
    "pix2pix_zero": _pix2pix_zero,
    "img2img": _img2img,
    "sd3_img2img": _sd3_img2img,
}


def _folder(settings: RunSettings, packaged: Path) -> str:
    return str(settings.config["backbone"].get("path") or packaged)


def _placed(parts: Any, device: torch.device, dtype: torch.dtype) -> Any:
    for module in parts.modules:
        frozen(module, device, dtype)
    return parts


def _guidance(settings: RunSettings) -> float:
    method: Any = settings.method
    return float(method.guidance)


def _pil(case: Case) -> Any:
    from PIL import Image

    return Image.fromarray(to_uint8(case.image[None])[0])
