"""Strict loading of any model: messages, and allowed extras."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zerocon.core.weights import (
    WeightsError,
    check_shards,
    is_harmless,
    load_beside,
    load_strictly,
    read_published_pickle,
    read_tensors,
)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_matching_weights_are_loaded() -> None:
    model, state = small(), {name: v + 1 for name, v in small().state_dict().items()}
    load_strictly(model, state | {"0.position_ids": torch.zeros(1)}, "it", "here")
    assert all(torch.equal(v, state[name]) for name, v in model.state_dict().items())


def test_all_problems_are_in_one_message() -> None:
    state = dict(small().state_dict())
    state["0.weight"], state["more"] = torch.zeros(2, 4), torch.zeros(1)
    del state["1.bias"]
    with pytest.raises(WeightsError) as caught:
        load_strictly(small(), state, "the net", "place.safetensors", original={"0.weight": "w"})
    assert str(caught.value) == (
        "the net from place.safetensors does not fit the model. 1 tensor is missing: 1.bias; "
        "1 tensor is unexpected: more; 1 tensor is of another shape: w is [2, 4], not [2, 3]"
    )


def test_a_message_names_some_and_counts_the_rest() -> None:
    state = {f"t{i}": torch.zeros(1) for i in range(9)} | dict(small().state_dict())
    with pytest.raises(WeightsError, match="9 tensors are unexpected: t0, t1, t2, t3, t4 and 4 mo"):
        load_strictly(small(), state, "it", "here")


def test_harmless_extras_are_listed() -> None:
    assert is_harmless("text_model.embeddings.position_ids")
    assert is_harmless("pooler.dense.weight", ("pooler.*",))
    assert not is_harmless("pooler.dense.weight")


def test_invalid_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    for name, said in (
        ("gone.safetensors", "there is no file"),
        ("text.safetensors", "truncated or not a safetensors file"),
        ("model.ckpt", "is a pickle, which can run code"),
    ):
        with pytest.raises(WeightsError, match=said):
            read_tensors(tmp_path / name, "the net")


class Exploit:
    """Makes a folder when it is read as an ordinary pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"weight": 3}, {"one": torch.zeros(1), "other": 3}]
)
def test_a_pickle_of_more_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "dino.pth")
    with pytest.raises(WeightsError, match="dictionary of tensors"):
        read_published_pickle(tmp_path / "dino.pth", "the ViT")


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "more": Exploit(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        read_published_pickle(tmp_path / "a.pth", "the ViT")
    assert not (tmp_path / "ran").exists()


def test_advice_ends_the_message_about_what_is_not_there() -> None:
    def missing(path: str, **options: object) -> None:
        raise OSError(f"no such place: {path}\nand much more")

    with pytest.raises(WeightsError) as raised:
        load_beside(missing, "there", "the tokenizer", advice="Look elsewhere")
    expected = "the tokenizer can't be loaded from 'there': no such place: there"
    assert str(raised.value) == f"{expected}. Look elsewhere"
    with pytest.raises(WeightsError) as raised:
        load_beside(missing, "there", "the tokenizer")
    assert str(raised.value) == expected


def test_shards_must_agree_with_their_index(tmp_path: Path) -> None:
    parts = {"a.safetensors": ["x", "y"], "b.safetensors": ["z"]}
    for file, names in parts.items():
        save_file({name: torch.zeros(1) for name in names}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {n: f for f, ns in parts.items() for n in ns}}))
    check_shards(tmp_path, "the net")
    save_file({"x": torch.zeros(1), "w": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"missing: y \(in a.*unexpected: w \(in a\.saf"):
        check_shards(tmp_path, "the net")
    index.write_text("[]")
    with pytest.raises(WeightsError, match="is not an index of shards"):
        check_shards(tmp_path, "the net")
