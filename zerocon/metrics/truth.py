"""Comparison with the ground truth: distance to the true edit, and success of the edit."""

from __future__ import annotations

from pathlib import Path

import torch
from lpips import LPIPS
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.cases import Case, World
from zerocon.core.size import Size
from zerocon.metrics.base import Column, Pictures, ProtocolName, chosen, judged
from zerocon.metrics.encoders import as_uint8
from zerocon.metrics.lpips import (
    MOVED,
    Net,
    given_lpips,
    lpips_distance,
    lpips_features,
    lpips_judge,
    shared_features,
    world_of_net,
)
from zerocon.metrics.pixel import masked_ssim, mse, psnr

READER_SIDE = 64


class GroundTruth:
    """Metrics for cases with a ground truth, nan for others. Both protocols agree."""

    known = (
        Column("psnr_truth", "dB", "higher", 2, needs_truth=True),
        Column("ssim_truth", "", "higher", 4, needs_truth=True),
        Column("lpips_truth", "1e-3", "lower", 1, takes=MOVED, needs_truth=True),
        Column("edit_success", "", "higher", 3, needs_truth=True),
    )

    def __init__(
        self,
        net: Net = "shapes",
        path: Path | None = None,
        protocol: ProtocolName = "masked",
        model: LPIPS | None = None,
    ) -> None:
        self.protocol = protocol
        judge = given_lpips(model) if model else lpips_judge(net, path)
        self.model, self.fingerprint = judge.model, judge.fingerprint
        names = [column.name for column in self.known]
        self.columns = tuple(
            judged(column, judge) if "lpips" in column.name else column
            for column in chosen(self.known, None, names)
        )

    @staticmethod
    def world_of(net: Net = "shapes", **_: object) -> World:
        return world_of_net(net)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        edited, truth = pictures.edited, pictures.ground_truth.nan_to_num(0.0)
        unknown = pictures.ground_truth.flatten(1).isnan().any(1)
        distances = {
            "psnr_truth": psnr(mse(edited, truth)),
            "ssim_truth": masked_ssim(edited, truth, pictures.weight("whole")),
            "lpips_truth": 1e3 * self._perceptual(pictures, truth),
        }
        known = {name: v.masked_fill(unknown, torch.nan) for name, v in distances.items()}
        return known | {"edit_success": edits_done(pictures)}

    def _perceptual(self, pictures: Pictures, truth: Tensor) -> Tensor:
        edited = shared_features(self.model, pictures, "edited")
        return lpips_distance(self.model, edited, lpips_features(self.model, truth))


def edits_done(pictures: Pictures) -> Tensor:
    """1.0 or 0.0 for each case; nan if the dataset can't decide, [case].

    Scenes are squares: of another picture it can't be decided.
    """
    if not Size.of_tensor(pictures.edited).is_square:
        return torch.full((len(pictures.cases),), torch.nan, dtype=torch.float64).to(
            pictures.edited.device
        )
    shown = F.interpolate(pictures.edited.float(), (READER_SIDE, READER_SIDE), mode="area")
    levels = as_uint8(shown).permute(0, 2, 3, 1).cpu()
    done = [_edit_done(case, level) for case, level in zip(pictures.cases, levels, strict=True)]
    return torch.tensor(done, dtype=torch.float64, device=pictures.edited.device)


def _edit_done(case: Case, levels: Tensor) -> float:
    return float("nan") if case.edit_done is None else float(case.edit_done(levels.numpy()))
