"""Each direction against its formula, on a tiny backbone; banks, cache, captions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY
from zerocon.directions import caption as captioned
from zerocon.directions import captioner, sentences
from zerocon.directions.base import mean_embedding, with_sources
from zerocon.directions.caption import Caption
from zerocon.directions.file import File
from zerocon.directions.inspect import direction_file, inspected
from zerocon.directions.language_model import PROMPT, first_sentence
from zerocon.directions.prompt_pair import PromptPair
from zerocon.directions.sentences import Sentences
from zerocon.directions.word_swap import WordSwap
from zerocon.ledger.cache import Cache
from zerocon.metrics import packaged
from zerocon.shapes.benchmark import edit as edit_of
from zerocon.shapes.captions import caption
from zerocon.shapes.check_evaluators import pictures_of

SOURCE = "a small red circle next to a big blue house in a meadow"
TARGET = "a small red circle next to a big blue heart in a meadow"
CLOSE = {"atol": 1e-5, "rtol": 0.0}
Backbone = StableDiffusionBackbone


def case(source: str = SOURCE, target: str = TARGET, name: str = "1") -> Case:
    return Case(name, torch.zeros(3, 32, 32), source, target)


CASES = [
    case(),
    case("a big red cross on a gray background", "a big green cross on a gray background", "2"),
    case("a big red cross in a meadow", "a big red cross at the beach", "3"),
]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty one."""
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "cache"))
    return Cache(1e9)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5, -1.0])
def test_prompt_pair_goes_from_source_to_target(backbone: Backbone, strength: float) -> None:
    source, target = (backbone.embed([prompt]).tokens[0] for prompt in (SOURCE, TARGET))
    (found,) = PromptPair(strength)(backbone, [case()]).tokens
    torch.testing.assert_close(found, (1 - strength) * source + strength * target, **CLOSE)


def test_prompt_pair_at_strength_one_is_word_swap(backbone: Backbone) -> None:
    torch.testing.assert_close(
        PromptPair()(backbone, CASES).tokens, WordSwap()(backbone, CASES).tokens, **CLOSE
    )


def test_pooled_moves_every_token_alike(backbone: Backbone) -> None:
    source, target = (backbone.embed([prompt]).tokens[0] for prompt in (SOURCE, TARGET))
    (found,) = PromptPair(pooled=True, strength=2)(backbone, [case()]).tokens
    moved = (target - source).mean(0)
    torch.testing.assert_close(found - source, 2 * moved.expand_as(source), **CLOSE)


def test_sentences_are_the_difference_of_two_means(backbone: Backbone, tmp_path: Path) -> None:
    banks = {"house": ["a red house", "a big house"], "heart": ["a heart", "a heart at the beach"]}
    file = write_banks(tmp_path, banks)
    (found,) = Sentences("file", file=file, strength=0.5)(backbone, [case()]).tokens
    old, new = (backbone.embed(banks[name]).tokens.mean(0) for name in ("house", "heart"))
    expected = backbone.embed([SOURCE]).tokens[0] + 0.5 * (new - old)
    torch.testing.assert_close(found, expected, **CLOSE)


def write_banks(folder: Path, banks: dict[str, list[str]]) -> Path:
    file = folder / "banks.json"
    file.write_text(json.dumps(banks))
    return file


def test_a_folder_of_text_files_is_a_bank_too(tmp_path: Path) -> None:
    (tmp_path / "house.txt").write_text("a red  house\n\na big house\n")
    (tmp_path / "big blue heart.txt").write_text("a heart\n")  # the phrase, without its article
    bank = Sentences("file", file=tmp_path, count=1)
    assert bank.sentences(SOURCE, TARGET) == (("a red house",), ("a heart",))
    with pytest.raises(
        CaseError, match=r"no sentences about 'cross'.*it has: big blue heart, house"
    ):
        bank.sentences("a cross in a meadow", "a heart in a meadow")


def test_order_and_repetition_have_no_effect(backbone: Backbone) -> None:
    bank = [
        f"a {size} {color} cross" for size in ("big", "small") for color in ("red", "blue")
    ] * 40
    bank += ["a cross in a meadow"]
    shuffled = [bank[i] for i in torch.randperm(len(bank), generator=torch.Generator()).tolist()]
    once = list(dict.fromkeys(bank))
    mean = mean_embedding(backbone, bank).tokens
    assert torch.equal(mean, mean_embedding(backbone, shuffled).tokens)
    assert torch.equal(mean, mean_embedding(backbone, once).tokens)
    torch.testing.assert_close(mean, backbone.embed(once).tokens.mean(0), **CLOSE)


@pytest.mark.parametrize("bank", ["prompts", "shapes", "shapes_elsewhere", "photo"])
@pytest.mark.parametrize("pooled", [False, True])
def test_directions_do_not_depend_on_the_batch(backbone: Backbone, bank: Any, pooled: bool) -> None:
    direction = Sentences(bank, count=6, pooled=pooled)
    alone = torch.cat([direction(backbone, [one]).tokens for one in CASES])
    torch.testing.assert_close(direction(backbone, CASES).tokens, alone, **CLOSE)
    turned = direction(backbone, CASES[::-1]).tokens.flip(0)
    torch.testing.assert_close(turned, alone, **CLOSE)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sentences go into each mean that is computed."""
    sizes: list[int] = []

    def mean(backbone: Any, bank: Any) -> Condition:
        sizes.append(len(bank))
        return mean_embedding(backbone, bank)

    monkeypatch.setattr(sentences, "mean_embedding", mean)
    return sizes


def test_a_direction_is_computed_once(
    backbone: Backbone, memory: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    first = Sentences("photo")(backbone, [case()], memory)
    again = Sentences("photo", strength=1.0)(backbone, [case()], memory)
    assert torch.equal(first.tokens, again.tokens)
    assert sizes == [32, 32]
    Sentences("photo", count=5)(backbone, [case()], memory)
    assert sizes == [32, 32, 5, 5]
    monkeypatch.setattr(backbone, "fingerprint", "another")
    Sentences("photo", count=5)(backbone, [case()], memory)
    assert sizes == [32, 32, 5, 5, 5, 5]


def changed_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def of_another_program(file: Path) -> None:
    save_file({"else": torch.zeros(1)}, file)


@pytest.mark.parametrize("spoil", [changed_bit, cut, of_another_program])
def test_a_damaged_cache_entry_is_not_used(
    backbone: Backbone,
    memory: Cache,
    spoil: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Sentences("photo", count=3)(backbone, [case()], memory)
    (file,) = (memory.folder / sentences.KIND).glob("*.safetensors")
    spoil(file)
    with caplog.at_level(logging.WARNING):
        again = Sentences("photo", count=3)(backbone, [case()], memory)
    assert torch.equal(again.tokens, first.tokens)
    assert f"{file.name} is damaged" in caplog.text
    assert load_file(file)["tokens"].shape == first.tokens.shape[1:]


def test_an_unwritable_cache_only_costs_time(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "file"))
    memory = Cache(1e9)
    assert Sentences("photo", count=2)(backbone, [case()], memory).tokens.isfinite().all()


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model that writes nonsense."""
    folder = tmp_path_factory.mktemp("writer")
    words = ["<unk>", "<eos>", *dict.fromkeys(f"{PROMPT} {SOURCE} {TARGET}".split())]
    splitter = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    splitter.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    named = {"unk_token": "<unk>", "eos_token": "<eos>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=splitter, **named)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_language_model_writes_the_bank(writer: Path, backbone: Backbone, memory: Cache) -> None:
    state = torch.random.get_rng_state()
    bank = Sentences("language_model", count=5, model=str(writer))
    old, new = bank.sentences(SOURCE, TARGET, memory)
    assert len(set(old)) > 1
    assert all(sentence.startswith("a big blue house") for sentence in old)
    assert [s.replace("a big blue house", "a big blue heart", 1) for s in old] == list(new)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(list((memory.folder / "sentences_v1").iterdir())) == 1
    # Written anew, the same: the random draws depend on the concept and the seed alone.
    assert bank.sentences(SOURCE, TARGET) == (old, new)
    other = Sentences("language_model", count=5, model=str(writer), seed=1)
    assert other.sentences(SOURCE, TARGET) != (old, new)
    apart = Sentences("language_model", count=5, model=str(writer), paired=False)
    assert apart.sentences(SOURCE, TARGET)[1] != new
    assert bank(backbone, [case()]).tokens.shape == backbone.embed([SOURCE]).tokens.shape


@pytest.mark.parametrize(
    ("text", "first"),
    [(" in a  park\nanother", "in a park"), (" runs. It sleeps.", "runs"), ("", ""), ("\na", "")],
)
def test_a_written_sentence_is_cut_at_its_end(text: str, first: str) -> None:
    assert first_sentence(text) == first


class Perfect:
    """A captioner that is always right."""

    fingerprint = "perfect"

    def __init__(self) -> None:
        self.known: dict[bytes, str] = {}

    def __call__(self, pictures: torch.Tensor) -> list[str]:
        return [self.known[picture.numpy().tobytes()] for picture in pictures]


PERFECT = Perfect()


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioned, "load_captioner", lambda: PERFECT)


def shown(edit_type: int, number: int = 0, *, source: bool = True) -> tuple[Case, str, str]:
    """A case with its picture, and the correct captions before and after."""
    edit = edit_of("validation", edit_type, number)
    (picture,) = pictures_of([edit.source])
    PERFECT.known[picture.numpy().tobytes()] = caption(edit.source)
    prompt = edit.source_prompt if source else ""
    one = Case(edit.id, picture, prompt, edit.target_prompt)
    return one, caption(edit.source), caption(edit.target)


@pytest.mark.usefixtures("perfect")
@pytest.mark.parametrize("edit_type", [1, 4, 5, 6, 7])
def test_the_caption_is_edited_as_the_prompts_are(edit_type: int, backbone: Backbone) -> None:
    one, before, after = shown(edit_type)
    (said,) = Caption().sentence_sets([one], NO_MEMORY)
    assert (said.base, said.sources, said.targets) == (before, (before,), (after,))
    expected = backbone.embed([after]).tokens
    torch.testing.assert_close(Caption()(backbone, [one]).tokens, expected, **CLOSE)


@pytest.mark.usefixtures("perfect")
def test_without_a_source_prompt_the_caption_is_used() -> None:
    one, before, _ = shown(6, source=False)
    for source in ("caption", "given"):
        direction = Caption(source=source)
        (said,) = direction.sentence_sets([one], NO_MEMORY)
        assert (said.base, said.sources, said.targets) == (before, (before,), (one.target_prompt,))
        assert [c.source_prompt for c in with_sources(direction, [one])] == [before]


@pytest.mark.usefixtures("perfect")
def test_the_runs_source_prompt() -> None:
    one, before, after = shown(6)
    assert with_sources(WordSwap(), [one]) == [one]
    assert with_sources(Caption(), [one])[0].source_prompt == before
    given = Caption(source="given")
    assert with_sources(given, [one])[0].source_prompt == one.source_prompt
    (said,) = given.sentence_sets([one], NO_MEMORY)
    assert (said.base, said.targets) == (one.source_prompt, (after,))


@pytest.mark.usefixtures("perfect")
def test_an_edit_of_what_the_caption_does_not_mention() -> None:
    one, before, _ = shown(6)
    one = Case(one.id, one.image, "some flowers", "some leaves")
    assert Caption().sentence_sets([one], NO_MEMORY)[0].targets == ("some leaves",)
    assert Caption().sentence_sets([one], NO_MEMORY)[0].sources == (before,)


@pytest.mark.usefixtures("perfect")
def test_the_prompts_direction_from_the_caption() -> None:
    one, before, _ = shown(6)
    (said,) = Caption(between="prompts").sentence_sets([one], NO_MEMORY)
    assert (said.base, said.sources) == (before, (one.source_prompt,))
    assert said.targets == (one.target_prompt,)
    alone = Case(one.id, one.image, "", "some leaves")
    (said,) = Caption(between="prompts").sentence_sets([alone], NO_MEMORY)
    assert (said.base, said.sources, said.targets) == (before, (before,), ("some leaves",))


@pytest.mark.usefixtures("perfect")
def test_the_caption_can_have_a_bank_of_its_own() -> None:
    one, before, after = shown(6)
    (said,) = Caption(bank="shapes", count=8).sentence_sets([one], NO_MEMORY)
    assert (said.sources, said.targets) == Sentences(count=8).sentences(before, after)


def test_any_blip_folder_can_be_used() -> None:
    one, _, _ = shown(1)
    other = Caption(captioner=str(captioner.FOLDER))
    assert other.captions([one]) == captioner.load_captioner()(one.image[None])


def test_a_written_direction_is_read_again(backbone: Backbone, tmp_path: Path) -> None:
    direction = PromptPair(strength=1.5)
    found = inspected(backbone, direction, case())
    (tmp_path / "delta.safetensors").write_bytes(direction_file(found, backbone.fingerprint))
    again = File(tmp_path / "delta.safetensors")
    torch.testing.assert_close(
        again(backbone, CASES[:1]).tokens, direction(backbone, CASES[:1]).tokens, **CLOSE
    )


def test_each_case_may_have_its_own_direction(backbone: Backbone, tmp_path: Path) -> None:
    shape = backbone.embed([""]).tokens.shape[1:]
    deltas = {"delta": torch.ones(shape), "delta.2": torch.full(shape, 2.0)}
    save_file(deltas, tmp_path / "own.safetensors")
    moved = File(tmp_path / "own.safetensors", strength=0.5)(backbone, CASES).tokens
    moved -= backbone.embed([c.source_prompt for c in CASES]).tokens
    torch.testing.assert_close(moved.mean((1, 2)), torch.tensor([0.5, 1.0, 0.5]), **CLOSE)
    save_file({"delta.2": torch.ones(shape)}, tmp_path / "one.safetensors")
    with pytest.raises(CaseError, match=r"no tensor 'delta.1' and no 'delta' for all"):
        File(tmp_path / "one.safetensors")(backbone, CASES)


def test_a_direction_that_does_not_fit_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"is \[2, 3\]; this backbone's tokens are \[77, 32\]"):
        File(Path(__file__).with_name("delta.safetensors"))(backbone, CASES)
    delta = torch.ones(backbone.embed([""]).tokens.shape[1:])
    save_file({"delta": delta}, tmp_path / "a.safetensors", {"backbone": "another"})
    with pytest.raises(ConfigError, match="was made with another backbone"):
        File(tmp_path / "a.safetensors")(backbone, CASES)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PromptPair(strength=11), "strength is 11; it must be between -10 and 10"),
        (lambda: Sentences(count=0), "direction.count is 0; it must be between 1"),
        (lambda: Sentences("photos"), "direction.bank is 'photos'; it must be one of: prompts"),
        (lambda: Sentences("file"), "direction.bank=file needs direction.file"),
        (lambda: Sentences(file=Path("a.json")), "direction.file=a.json has no effect"),
        (lambda: Sentences("file", file=Path("no.json")), "no.json can't be read: No such file"),
        (lambda: Sentences("language_model"), "needs direction.model"),
        (lambda: Sentences("language_model", model="me/mine"), "pin its commit with direction.rev"),
        (lambda: Sentences("language_model", model="./mine"), "there is no such folder"),
        (lambda: Caption(captioner="me/mine"), "pin its commit with direction.captioner_revision"),
        (lambda: Caption(source="none"), "direction.source is 'none'"),
        (lambda: File(Path("no.safetensors")), "no.safetensors can't be read"),
        (lambda: File(packaged.LPIPS_FOLDER / "lpips_squeeze.safetensors"), "no tensor named"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_before_anything_runs(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def own_bank(source: str, target: str, count: int) -> list[tuple[str, str]]:
    return [(f"{i} {source}", f"{i} {target}") for i in range(count)]


def test_a_registered_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "BANKS", dict(sentences.BANKS))
    sentences.add_bank("own", f"{__name__}:own_bank")
    assert Sentences("own", count=2).sentences("a", "b") == (("0 a", "1 a"), ("0 b", "1 b"))
    with pytest.raises(ConfigError, match="named 'photo' already"):
        sentences.add_bank("photo", f"{__name__}:own_bank")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = write_banks(tmp_path, {"house": ["a house"], "heart": ["a heart"]})
    bank = Sentences("file", file=file)
    assert bank.sentences(SOURCE, TARGET)[0] == ("a house",)
    write_banks(tmp_path, {"house": ["a home"], "heart": ["a heart"]})
    assert bank.sentences(SOURCE, TARGET)[0] == ("a home",)


def test_problems_of_a_case_have_messages() -> None:
    with pytest.raises(CaseError, match=r"need prompts of its grammar.*direction\.bank=photo"):
        Sentences().sentences("a cat", "a dog")
    with pytest.raises(CaseError, match="direction=caption writes one"):
        Sentences().sentences("", TARGET)


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"cat": "a cat"}', '{"cat": [" "]}'])
def test_a_broken_bank_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "banks.json").write_text(text)
    with pytest.raises(ConfigError, match=r"expected a folder of <concept>.txt"):
        Sentences("file", file=tmp_path / "banks.json")
