"""`zerocon shapes check`: how good the packaged models are, on scenes they never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection

from zerocon.backbones.base import Backbone
from zerocon.backbones.shapes import Shapes, ShapesFlow
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.weights import PACKAGED, load_strictly, read_tensors
from zerocon.inversions.base import Inversion
from zerocon.inversions.by_solver import (
    FireFlowInversion,
    FixedPointInversion,
    RFSolverInversion,
    UniInversion,
)
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.ddim import DDIM
from zerocon.shapes.captions import caption
from zerocon.shapes.check_evaluators import (
    CaptionPictures,
    check_evaluators,
    distinct_scenes,
    pictures_of,
)
from zerocon.shapes.generate import generate
from zerocon.shapes.reader import attributes, read
from zerocon.shapes.render import render
from zerocon.shapes.scene import Scene
from zerocon.shapes.train.text import ImageTower, build_text

Progress = Callable[[str], None]
Loaded = Callable[[Backbone], None]
FLOW_STEPS, INVERTED_STEPS = 28, 50

INVERSIONS: Mapping[str, Inversion] = {
    "ddim": DDIMInversion(),
    "rf_solver": RFSolverInversion(),
    "fireflow": FireFlowInversion(),
    "uni_inv": UniInversion(),
    "fixed_point": FixedPointInversion(),
}


def check(
    captioner: CaptionPictures,
    progress: Progress = lambda _: None,
    loaded: Loaded = lambda _: None,
    *,
    captions: int = 500,
    pictures: int = 500,
    inverted: int = 100,
    read_scenes: int = 2000,
    steps: int = 30,
    guidance: float = 4.0,
) -> dict[str, object]:
    """Every measure by name.

    `progress` is called with the name of the current one, `loaded` with each model that is
    evaluated (about `evaluations` rows in all).
    """
    backbone = Shapes(dtype="float32").load()
    loaded(backbone)
    scenes = distinct_scenes(max(captions, pictures, inverted, 1000))
    progress("autoencoder")
    found: dict[str, object] = {"vae_psnr": vae_psnr(backbone, scenes[:pictures])}
    progress("retrieval and captions")
    judges = check_evaluators(captioner)
    found["clip_retrieval_at_1"] = {
        "generator": generator_retrieval(backbone, scenes[:1000]),
        "evaluator": judges.pop("eval_clip_retrieval_at_1"),
    }
    found |= judges
    progress("generation")
    found["generation_attributes"] = generation(backbone, scenes[:captions], steps, guidance)
    progress("inversion")
    found["inversion_psnr"] = inversion_psnr(backbone, scenes[:inverted])
    progress("reader")
    found["reader_exact"] = reader_exact(read_scenes)
    progress("the flow transformer")
    found["flow"] = check_flow(scenes[:captions], scenes[:inverted], loaded)
    return found


def evaluations(captions: int, inverted: int = 100, steps: int = 30) -> int:
    """About how many rows pass the networks: the guided generations, inversions and replays."""
    generated = captions * 2 * (steps + FLOW_STEPS)
    inversions = inverted * (INVERTED_STEPS + len(INVERSIONS) * 2 * FLOW_STEPS)
    return generated + inversions + inverted * (INVERTED_STEPS + len(INVERSIONS) * FLOW_STEPS)


def check_flow(
    drawn: Sequence[Scene],
    inverted: Sequence[Scene],
    loaded: Loaded = lambda _: None,
    steps: int = FLOW_STEPS,
    guidance: float = 4.0,
) -> dict[str, object]:
    """The same of the flow transformer: what it draws, and how well each solver inverts it."""
    backbone = ShapesFlow(dtype="float32").load()
    loaded(backbone)
    return {
        "generation_attributes": generation(backbone, drawn, steps, guidance),
        "inversion_psnr": {
            name: inversion_psnr(backbone, inverted, inversion, steps)
            for name, inversion in INVERSIONS.items()
        },
    }


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Of pictures in 0..1, one value a picture."""
    return -10 * (a - b).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def vae_psnr(backbone: StableDiffusionBackbone, scenes: Sequence[Scene]) -> float:
    images = pictures_of(list(scenes))
    values = [psnr(i, backbone.decode(backbone.encode(i))) for i in images.split(50)]
    return torch.cat(values).mean().item()


@torch.no_grad()
def generator_retrieval(backbone: StableDiffusionBackbone, scenes: Sequence[Scene]) -> float:
    """How often a picture finds its own caption among all of them."""
    folder = PACKAGED / "generator_clip"
    text = build_text().eval()
    assert isinstance(text, CLIPTextModelWithProjection)
    text.text_model.load_state_dict(backbone.text_encoder.state_dict())
    tower = ImageTower().eval()
    stored = {"projection": text.text_projection, "image_tower": tower}
    for name, module in stored.items():
        file = folder / f"{name}.safetensors"
        load_strictly(module, read_tensors(file, f"the {name}"), f"the {name}", file)
    sentences = [caption(scene, Random(f"retrieval-{i}")) for i, scene in enumerate(scenes)]
    tokens = backbone.tokenizer(sentences, padding=True, return_tensors="pt").input_ids
    texts = F.normalize(text(tokens).text_embeds, dim=1)
    images = pictures_of(list(scenes)) * 2 - 1
    seen = F.normalize(torch.cat([tower(i) for i in images.split(100)]), dim=1)
    return ((seen @ texts.T).argmax(1) == torch.arange(len(scenes))).float().mean().item()


def generation(
    backbone: Backbone,
    scenes: Sequence[Scene],
    steps: int,
    guidance: float,
    batch: int = 25,
) -> dict[str, float]:
    """The share of generated pictures in which each attribute is what the caption said."""
    rows: list[dict[str, bool]] = []
    for start in range(0, len(scenes), batch):
        group = scenes[start : start + batch]
        prompts = [caption(s, Random(f"generation-{start + i}")) for i, s in enumerate(group)]
        noise = _noise(range(start, start + len(group)))
        pictures = generate(backbone, prompts, noise, steps, guidance)
        rows.extend(
            attributes(read(picture), scene)
            for picture, scene in zip(as_bytes(pictures), group, strict=True)
        )
    shares = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**shares, "all": float(np.mean([all(row.values()) for row in rows]))}


@torch.no_grad()
def inversion_psnr(
    backbone: Backbone,
    scenes: Sequence[Scene],
    inversion: Inversion = INVERSIONS["ddim"],
    steps: int = INVERTED_STEPS,
) -> float:
    """Inverted and replayed at guidance 1, against the autoencoder's own picture."""
    values: list[Tensor] = []
    replay, draws = DDIM(steps, 1.0, "source"), Draws(0, ())
    for start in range(0, len(scenes), 25):
        group = list(scenes[start : start + 25])
        clean = backbone.encode(pictures_of(group))
        cond = backbone.embed([caption(scene) for scene in group])
        conditions = Conditions(cond, cond, cond)
        trajectory = inversion(backbone, clean, conditions, steps, draws)
        z = replay(backbone, trajectory, conditions, draws)
        values.append(psnr(backbone.decode(z), backbone.decode(clean)))
    return torch.cat(values).mean().item()


def reader_exact(count: int) -> float:
    """How often the reader gets a clean picture's scene exactly right."""
    scenes = distinct_scenes(count)
    return float(np.mean([read(render(s)).described() == s.described() for s in scenes]))


def as_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    return pictures.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _noise(seeds: Sequence[int]) -> Tensor:
    """Of both models' latents."""
    draws = [
        torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(7_000 + s)) for s in seeds
    ]
    return torch.stack(draws)
