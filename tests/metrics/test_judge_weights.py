"""No judge, captioner or language model runs with a tensor that is not in its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lpips import LPIPS
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTModel

from tests.damage import KINDS, as_pickle, damage
from zerocon.core.weights import WeightsError
from zerocon.directions import captioner
from zerocon.directions.captioner import load_captioner
from zerocon.directions.language_model import load_writer
from zerocon.metrics import packaged
from zerocon.metrics.clip import ClipScore
from zerocon.metrics.encoders import load_clip, load_vit
from zerocon.metrics.lpips import PerceptualDistance, lpips_from
from zerocon.metrics.structure import StructureDistance

Load = Callable[[Path], object]


def vit_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=True).save_pretrained(folder)
    return folder


def gpt_folder(folder: Path) -> Path:
    GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def files(tmp_path: Path, tiny_clip: str) -> Callable[[str], tuple[Path, Load]]:
    """A folder with a model of each kind, and its loader."""

    def copied(source: Path) -> Path:
        return Path(shutil.copytree(source, tmp_path / "model"))

    def made(kind: str) -> tuple[Path, Load]:
        match kind:
            case "CLIP":
                return copied(Path(tiny_clip)), lambda f: load_clip(str(f))
            case "CLIP of shapes":
                return copied(packaged.CLIP_FOLDER), packaged.load_clip
            case "ViT":
                return vit_folder(tmp_path / "model"), lambda f: load_vit(str(f))
            case "ViT of shapes":
                return copied(packaged.STRUCTURE_FOLDER), lambda f: load_vit(str(f))
            case "LPIPS of shapes":
                return copied(packaged.LPIPS_FOLDER), packaged.load_lpips
            case "captioner":
                return copied(captioner.FOLDER), lambda f: load_captioner(str(f))
            case _:
                return gpt_folder(tmp_path / "model"), lambda f: load_writer(str(f), None)

    return made


MODELS = ("CLIP", "CLIP of shapes", "ViT", "ViT of shapes", "LPIPS of shapes", "captioner",
          "language model")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_a_damaged_model_is_refused(
    files: Callable[[str], tuple[Path, Load]], model: str, kind: str
) -> None:
    folder, load = files(model)
    (file,) = folder.glob("*.safetensors")
    wide = [n for n, v in load_file(file).items() if v.ndim >= 2 and not _is_harmless_name(n)]
    said = damage(file, kind, wide[len(wide) // 2])
    with pytest.raises(WeightsError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("model", ["CLIP", "CLIP of shapes", "captioner", "language model"])
def test_a_tokenizer_without_its_words_is_refused(
    files: Callable[[str], tuple[Path, Load]], model: str
) -> None:
    """Transformers would continue with only special tokens, and all prompts would be equal."""
    folder, load = files(model)
    for file in [*folder.glob("*vocab*"), *folder.glob("tokenizer*"), *folder.glob("merges.txt")]:
        file.unlink()
    with pytest.raises(WeightsError, match="the files of its vocabulary") as caught:
        load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("damaged", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("model", ["CLIP", "CLIP of shapes", "captioner"])
def test_a_damaged_tokenizer_is_refused(
    files: Callable[[str], tuple[Path, Load]], model: str, damaged: str
) -> None:
    folder, load = files(model)
    (folder / damaged).write_text("[]")
    with pytest.raises(WeightsError, match="can't be loaded from"):
        load(folder)


def _is_harmless_name(name: str) -> bool:
    return name.startswith("pooler") or "lm_head" in name


@pytest.mark.parametrize("model", ["CLIP", "ViT", "captioner", "language model"])
def test_pickles_are_refused_with_a_message(
    files: Callable[[str], tuple[Path, Load]], model: str
) -> None:
    folder, load = files(model)
    (file,) = folder.glob("*.safetensors")
    as_pickle(file)
    with pytest.raises(WeightsError, match=r"a \.bin file is a pickle, which can run code"):
        load(folder)


def test_unused_heads_are_ignored(tmp_path: Path) -> None:
    load_vit(str(vit_folder(tmp_path / "vit")))  # it was saved with its pooling layer


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's file of a SqueezeNet, with its classifier."""
    torch.manual_seed(0)
    net = LPIPS(net="squeeze", pnet_rand=True, verbose=False).net
    state = {f"features.{k.split('.', 1)[1]}": v for k, v in net.state_dict().items()}
    file = tmp_path_factory.mktemp("trunk") / "squeezenet1_1.safetensors"
    save_file(state | {"classifier.1.weight": torch.zeros(3)}, file)
    return file


def test_a_whole_trunk_is_loaded(trunk: Path) -> None:
    model = lpips_from("squeeze", trunk)
    stored = load_file(trunk)["features.0.weight"]
    assert torch.equal(model.net.state_dict()["slice1.0.weight"], stored)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_trunk_is_refused(trunk: Path, tmp_path: Path, kind: str) -> None:
    file = Path(shutil.copy(trunk, tmp_path))
    said = damage(file, kind, "features.0.weight")
    with pytest.raises(WeightsError, match=said):
        lpips_from("squeeze", file)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_dino_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    file = tmp_path / "dino.safetensors"
    save_file(model.state_dict(), file)
    said = damage(file, kind, "blocks.1.mlp.fc2.weight")
    with pytest.raises(WeightsError, match=said):
        load_vit(str(file))


def test_judges_have_a_name_in_words(tiny_clip: str, tmp_path: Path) -> None:
    def name(metric: ClipScore | StructureDistance | PerceptualDistance) -> str:
        assert metric.columns[0].judge == metric.fingerprint
        return metric.columns[0].judge_name

    assert name(ClipScore()) == "open_clip ModifiedResNet of the shapes world"
    assert name(StructureDistance()) == "ViT of the shapes world"
    assert name(PerceptualDistance()) == "LPIPS SqueezeNet of the shapes world"
    assert name(ClipScore(tiny_clip)) == f"CLIP ViT-16/8, {Path(tiny_clip).name}"
    folder = vit_folder(tmp_path / "my-vit")
    assert name(StructureDistance(str(folder))) == "ViT-16/8, my-vit"
