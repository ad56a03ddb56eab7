"""`zerocon direction` shows what the direction does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.utils import save_image

from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.cli import main
from zerocon.core.cases import Case
from zerocon.directions.inspect import inspected
from zerocon.directions.prompt_pair import PromptPair
from zerocon.directions.word_swap import WordSwap
from zerocon.shapes.benchmark import edit as edit_of
from zerocon.shapes.captions import caption
from zerocon.shapes.check_evaluators import pictures_of

SOURCE, TARGET = "a big red cross in a meadow", "a big blue cross in a meadow"
PAIR = [SOURCE, TARGET]
CASE = Case("command line", torch.zeros(3, 32, 32), *PAIR)
TOO_SMALL = Path(__file__).with_name("delta.safetensors")


def test_similarities_are_cosines_of_means(backbone: StableDiffusionBackbone) -> None:
    found = inspected(backbone, PromptPair(strength=0.5), CASE)
    source, target = backbone.embed(PAIR).tokens[:, 1:].mean(1)  # without the start token
    before, after = found.similarities["target sentences"]
    middle = (source + target) / 2
    assert before == pytest.approx(F.cosine_similarity(source, target, dim=0).item(), abs=1e-5)
    assert after == pytest.approx(F.cosine_similarity(middle, target, dim=0).item(), abs=1e-5)
    assert found.similarities["source sentences"][0] == pytest.approx(1, abs=1e-5)
    assert found.words == ["<|startoftext|>", *SOURCE.split(), "<|endoftext|>"]


def test_directions_without_sentences_compare_the_prompts(
    backbone: StableDiffusionBackbone,
) -> None:
    found = inspected(backbone, WordSwap(), CASE)
    assert found.similarities["target sentences"][1] == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found.after.tokens, backbone.embed([TARGET]).tokens[0])


@pytest.mark.slow
def test_the_command_shows_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "delta.safetensors"
    main(["direction", "--out", str(out), *PAIR, "direction=sentences", "direction.count=4"])
    shown = capsys.readouterr().out
    assert "target sentences" in shown
    assert "|Δ| / |c|" in shown
    main(["direction", *PAIR, "direction.count=4"])  # no picture, so from prompt to prompt
    assert capsys.readouterr().out == shown.replace(shown.splitlines()[-1] + "\n", "")
    main(["direction", *PAIR, "direction=file", f"direction.path={out}"])
    numbers = [line for line in capsys.readouterr().out.splitlines() if "|c|" in line]
    assert numbers[0] in shown  # the same step


def test_the_caption_comes_from_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = edit_of("validation", 6, 0)
    save_image(pictures_of([edit.source])[0], tmp_path / "a.png")
    picture = ["--image", str(tmp_path / "a.png")]
    main(["direction", *picture, "", edit.target_prompt, "direction=caption"])
    shown = " ".join(capsys.readouterr().out.split())
    assert caption(edit.source)[:40] in shown


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["direction=caption"], "give it as --image FILE"),
        (["method=sdedit"], "method=sdedit has no effect on a direction"),
        (["direction=word_swap", "direction.strength=2"], "direction.strength"),
        (["direction=file", f"direction.path={TOO_SMALL}"], "tokens are [77, 96]"),
    ],
)
def test_wrong_settings_have_messages(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["direction", *PAIR, *overrides])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
