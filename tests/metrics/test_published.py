"""The published protocol against its arithmetic, written out with torchmetrics and timm.

Everything here is computed one case at a time, from 8-bit pictures, in the published order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_pictures import Unwrapped
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.functional.regression import mean_squared_error
from torchvision.transforms import Normalize, Resize

from zerocon.core.cases import Case
from zerocon.metrics.base import Metric, Pictures
from zerocon.metrics.clip import ClipScore
from zerocon.metrics.encoders import PublishedClip
from zerocon.metrics.lpips import PerceptualDistance
from zerocon.metrics.pixel import PixelDistances
from zerocon.metrics.structure import StructureDistance

SIDE = 64
SHARES = (0.0, 0.01, 0.5, 0.99, 1.0)
PROMPTS = ("a red circle", "a big blue square in a meadow", "two green stars at night")


def photo(seed: int) -> np.ndarray:
    """A smooth landscape with grain, 8-bit, [side, side, 3]."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [np.sin(2 * np.pi * (draws.uniform(0.5, 3, 3)[c] * x + draws.uniform(0.5, 3) * y) + c)
             for c in range(3)]  # fmt: skip
    levels = 128 + 90 * np.stack(waves, 2) + draws.normal(0, 12, (SIDE, SIDE, 3))
    return levels.clip(0, 255).astype(np.uint8)


def mask_of(share: float, seed: int) -> np.ndarray:
    """A box of `share` of the picture (or all but one), [side, side]; 0 and 1 are exact."""
    if share in (0.0, 1.0):
        return np.full((SIDE, SIDE), share, np.float32)
    draws = np.random.default_rng(seed)
    side = round(SIDE * math.sqrt(min(share, 1 - share)))
    top, left = draws.integers(0, SIDE - side, 2)
    box = np.zeros((SIDE, SIDE), np.float32)
    box[top : top + side, left : left + side] = 1
    return box if share <= 0.5 else 1 - box


def edited_from(source: np.ndarray, kind: int, seed: int) -> np.ndarray:
    if kind == 0:
        return photo(seed + 100)
    if kind == 1:
        return np.roll(source, 3, axis=1)
    if kind == 2:
        return np.zeros_like(source)
    return (source * 0.8).astype(np.uint8)


def twenty() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    """(source, edited, mask, target prompt): every share of mask with every kind of edit."""
    found = []
    for i, share in enumerate(SHARES * 4):
        source = photo(i)
        edited = edited_from(source, i // len(SHARES), i)
        found.append((source, edited, mask_of(share, i), PROMPTS[i % len(PROMPTS)]))
    return found


def tensor(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels).permute(2, 0, 1)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    cases, edited = [], []
    for i, (source, after, mask, prompt) in enumerate(twenty()):
        image = tensor(source).float() / 255
        cases.append(Case(str(i), image, "a photo", prompt, mask=torch.from_numpy(mask)[None]))
        edited.append(tensor(after).float() / 255)
    return Pictures.of(cases, torch.stack(edited))


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, _LPIPS]:
    """torchvision's file of a SqueezeNet, and torchmetrics' LPIPS on it."""
    torch.manual_seed(0)
    theirs = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True, use_dropout=True).eval()
    state = {k.split(".", 2)[2]: v for k, v in theirs.net.state_dict().items()}
    file = tmp_path_factory.mktemp("trunk") / "squeezenet1_1.safetensors"
    save_file({f"features.{k}": v for k, v in state.items()}, file)
    return file, theirs


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, VisionTransformer]:
    """A checkpoint with DINO's own names, and the model that it is of."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=3, num_heads=2, num_classes=0
    )
    for value in model.parameters():  # far from a new network's near-zero weights
        torch.nn.init.normal_(value, std=0.2)
    file = tmp_path_factory.mktemp("dino") / "dino_vitbase8_pretrain.pth"
    torch.save(model.state_dict(), file)
    return str(file), model.eval()


Value = Callable[[np.ndarray, np.ndarray, np.ndarray, str], float]


def floats(levels: np.ndarray, keep: np.ndarray | None) -> Tensor:
    values = levels.astype(np.float32) / 255
    return tensor(values if keep is None else values * keep[..., None])[None]


def published_pixel(measure: str, part: str) -> Value:
    def value(source: np.ndarray, edited: np.ndarray, mask: np.ndarray, _: str) -> float:
        keep = {"bg": 1 - mask, "edited": mask, "whole": None}[part]
        if keep is not None and keep.sum() == 0:
            return math.nan
        a, b = floats(source, keep), floats(edited, keep)
        if measure == "psnr":
            return float(peak_signal_noise_ratio(a, b, data_range=1.0))
        if measure == "ssim":
            return float(torch.as_tensor(structural_similarity_index_measure(a, b, data_range=1.0)))
        return 1e4 * float(mean_squared_error(a[0].contiguous(), b[0].contiguous()))

    return value


@torch.no_grad()
def published_keys(model: VisionTransformer, levels: np.ndarray) -> Tensor:
    """The last block's keys, of pixels in 0..255."""
    prepare = torch.nn.Sequential(
        Resize(32, max_size=480, antialias=False),
        Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    )
    found: list[Tensor] = []
    qkv = model.blocks[-1].attn.qkv
    handle = qkv.register_forward_hook(lambda _m, _i, output: found.append(output))
    model.forward_features(prepare(tensor(levels.astype(np.float32)))[None])
    handle.remove()
    tokens = found[0].shape[1]
    keys = found[0].reshape(tokens, 3, 2, 64).permute(1, 2, 0, 3)[1]  # [head, token, 64]
    return keys.transpose(0, 1).reshape(tokens, 128)


def similarities(keys: Tensor) -> Tensor:
    norm = keys.norm(dim=1, keepdim=True)
    return keys @ keys.T / (norm @ norm.T).clamp(min=1e-8)


def check(
    metric: Metric, pictures: Pictures, name: str, wanted: Value, near_zero: float = 1e-6
) -> None:
    """All twenty agree to a relative 1e-5, or near zero to far less than the shown digits."""
    found = metric(pictures)[name].tolist()
    for i, (request, value) in enumerate(zip(twenty(), found, strict=True)):
        expected = wanted(*request)
        assert value == pytest.approx(expected, rel=1e-5, abs=near_zero, nan_ok=True), (i, name)


PIXEL = [f"{measure}_{part}" for measure in ("psnr", "ssim", "mse")
         for part in ("bg", "edited", "whole")]  # fmt: skip


@pytest.mark.parametrize("name", PIXEL)
def test_pixel_columns(pictures: Pictures, name: str) -> None:
    metric = PixelDistances("published", columns=(name,))
    check(metric, pictures, name, published_pixel(*name.split("_")))


@pytest.mark.parametrize("part", ["bg", "edited", "whole"])
def test_lpips_columns(pictures: Pictures, trunk: tuple[Path, _LPIPS], part: str) -> None:
    file, theirs = trunk

    @torch.no_grad()
    def value(source: np.ndarray, edited: np.ndarray, mask: np.ndarray, _: str) -> float:
        keep = {"bg": 1 - mask, "edited": mask, "whole": None}[part]
        if keep is not None and keep.sum() == 0:
            return math.nan
        return 1e3 * float(theirs(floats(source, keep) * 2 - 1, floats(edited, keep) * 2 - 1))

    name = f"lpips_{part}"
    metric = PerceptualDistance("squeeze", file, protocol="published", columns=(name,))
    check(metric, pictures, name, value)


def test_structure(pictures: Pictures, dino: tuple[str, VisionTransformer]) -> None:
    file, model = dino

    def value(source: np.ndarray, edited: np.ndarray, _m: np.ndarray, _p: str) -> float:
        maps = [similarities(published_keys(model, levels)) for levels in (source, edited)]
        return 1e3 * float(torch.nn.functional.mse_loss(maps[1], maps[0]))

    check(StructureDistance(file, protocol="published"), pictures, "structure", value)


@pytest.mark.parametrize("name", ["clip_whole", "clip_edited"])
def test_clip_columns(pictures: Pictures, tiny_clip: str, name: str) -> None:
    encoder = PublishedClip(tiny_clip)

    def value(_s: np.ndarray, edited: np.ndarray, mask: np.ndarray, prompt: str) -> float:
        if name == "clip_edited" and mask.sum() == 0:
            return math.nan
        shown = np.uint8(edited * mask[..., None]) if name == "clip_edited" else edited
        judge = (Unwrapped(encoder.model), encoder.processor)
        return max(0.0, float(torch.as_tensor(clip_score(tensor(shown), prompt, lambda: judge))))

    metric = ClipScore(protocol="published", encoder=encoder, columns=(name,))
    # A cosine near zero is what rounding to single precision leaves of a sum.
    check(metric, pictures, name, value, near_zero=2e-5)


def test_a_prompt_that_is_too_long_loses_its_end_token(tiny_clip: str) -> None:
    """As in torchmetrics; `masked` keeps the end token, from which the sentence is read."""
    encoder, picture = PublishedClip(tiny_clip), tensor(photo(3))
    prompt = "a big red circle next to a small blue house in a meadow " * 9
    assert encoder.too_long(prompt)
    case = Case("long", picture.float() / 255, "a photo", prompt)
    batch = Pictures.of([case], picture.float()[None] / 255)
    judge = (Unwrapped(encoder.model), encoder.processor)
    wanted = max(0.0, float(torch.as_tensor(clip_score(picture, prompt, lambda: judge))))
    columns = ("clip_whole",)
    published = ClipScore(protocol="published", encoder=encoder, columns=columns)(batch)
    masked = ClipScore(encoder=encoder, columns=columns)(batch)
    assert published["clip_whole"].item() == pytest.approx(wanted, rel=1e-5, abs=2e-5)
    assert not torch.equal(encoder.texts([prompt]), encoder.texts([prompt], cut_end=True))
    assert masked["clip_whole"].item() != published["clip_whole"].item()


def test_the_twenty_are_what_they_should_be(pictures: Pictures) -> None:
    shares = PixelDistances(columns=("edited_share",))(pictures)["edited_share"].tolist()
    assert [round(share, 2) for share in shares[:5]] == [0, 0.01, 0.49, 0.99, 1]
    assert len(shares) == 20
