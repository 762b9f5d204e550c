from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gglm import weights
from gglm.errors import WeightsError
from gglm.weights import CONFIG, MODEL, TOKENIZER, Answerability, ReaderSettings
from tests.gglm.conftest import Trained


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "copy"))


def test_what_was_saved_comes_back(trained: Trained, tmp_path: Path) -> None:
    settings = ReaderSettings(alone=Answerability(2.0, threshold=0.25), several=Answerability(certainty=3.0))
    folder = weights.save(
        tmp_path / "new", trained.model, trained.tokenizer.model, "name-1",
        reader=settings, tasks=("对话",), card="# Card\n", meta={"f1": 1.5},
    )  # fmt: skip
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", CONFIG, MODEL, TOKENIZER]
    loaded = weights.load(folder)
    assert (loaded.name, loaded.reader, loaded.tasks, loaded.meta) == ("name-1", settings, ("对话",), {"f1": 1.5})
    assert not loaded.model.training
    ours = trained.model.state_dict()
    theirs = loaded.model.state_dict()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert value.dtype == ours[key].dtype, key
        stored = ours[key].bfloat16().float() if value.is_floating_point() and value.ndim > 1 else ours[key]
        assert torch.equal(value, stored), key
    assert torch.equal(loaded.model.encoder.cos, trained.model.encoder.cos)
    assert torch.equal(loaded.model.decoder.sin, trained.model.decoder.sin)
    size = sum(v.numel() for v in theirs.values())
    assert (folder / MODEL).stat().st_size < 2.2 * size + 20_000


def test_int8_halves_the_file_and_moves_nothing_by_more_than_half_a_step(trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = trained.model, trained.tokenizer.model
    full = weights.save(tmp_path / "full", model, tokenizer, "full")
    small = weights.save(tmp_path / "small", model, tokenizer, "small", int8=True)
    assert (small / MODEL).stat().st_size < 0.65 * (full / MODEL).stat().st_size
    ours, theirs = model.state_dict(), weights.load(small).model.state_dict()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert value.dtype == ours[key].dtype, key
        if value.is_floating_point() and value.ndim > 1:
            largest = ours[key].abs().amax(tuple(range(1, value.ndim)), keepdim=True)
            assert ((value - ours[key]).abs() <= largest / 253).all(), key
        else:
            assert torch.equal(value, ours[key]), key


def test_borrowed_matrices_are_stored_once(folder: Path, tmp_path: Path) -> None:
    """What differs from the lender is stored; the rest comes from beside it, or nothing is loaded."""
    model = weights.load(folder).model
    with torch.no_grad():
        model.decoder.layers[0].cross.query.weight.mul_(2)
    plain = weights.save(tmp_path / "plain", model, folder / TOKENIZER, "plain", int8=True)
    part = weights.save(tmp_path / "part", model, folder / TOKENIZER, "part", int8=True, lender=folder)
    assert (part / MODEL).stat().st_size < 0.2 * (plain / MODEL).stat().st_size
    changed, theirs = weights.load(part).model.state_dict(), model.state_dict()
    assert changed.keys() == theirs.keys()
    whole = [k for k in theirs if torch.equal(changed[k], theirs[k])]
    assert set(theirs) - set(whole) == {"decoder.layers.0.cross.query.weight"}  # rounded to int8
    other = Path(shutil.copytree(part, tmp_path / "elsewhere" / "part"))
    with pytest.raises(WeightsError, match="rest lies in copy"):
        weights.load(other)
    weights.update_config(part, borrowed={"from": folder.name})
    with pytest.raises(WeightsError, match="borrowed"):
        weights.load(part)


def test_a_lender_that_was_trained_on_is_noticed(folder: Path, tmp_path: Path) -> None:
    lent = weights.load(folder)
    part = weights.save(tmp_path / "part", lent.model, folder / TOKENIZER, "part", lender=folder)
    with torch.no_grad():
        lent.model.decoder.layers[0].cross.query.weight[5] += 1
    weights.save(folder, lent.model, folder / TOKENIZER, "trained on")
    with pytest.raises(WeightsError, match="goes with other weights"):
        weights.load(part)


def test_saving_again_over_itself_keeps_the_tokenizer(folder: Path) -> None:
    loaded = weights.load(folder)
    weights.save(folder, loaded.model, folder / TOKENIZER, "again")
    assert weights.load(folder).name == "again"


def test_config_updates_keep_the_rest(folder: Path) -> None:
    before = weights.read_config(folder)
    weights.update_config(folder, reader=ReaderSettings(alone=Answerability(threshold=0.75)))
    after = weights.read_config(folder)
    assert after["reader"]["alone"]["threshold"] == 0.75
    assert {k: v for k, v in after.items() if k != "reader"} == {k: v for k, v in before.items() if k != "reader"}


@pytest.mark.parametrize("name", [CONFIG, MODEL, TOKENIZER])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        weights.load(folder)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_damage_is_noticed(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "format"),
        ({"model": {"d_model": 63, "num_heads": 2}}, "shape cannot be used"),
        ({"model": {"colour": 1}}, "colour"),
        ({"reader": {"treshold": 0.5}}, "treshold"),
        ({"reader": 3}, "not as expected"),
        ({"model": {"vocab_size": 5}}, "pieces"),
        ({"model": {"encoder_layers": 5, "vocab_size": 448}}, "does not fit"),
    ],
)
def test_a_wrong_config_is_explained(folder: Path, change: dict[str, object], said: str) -> None:
    config = weights.read_config(folder)
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key == "model" else value
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        weights.load(folder)


def test_text_that_is_no_config(folder: Path) -> None:
    (folder / CONFIG).write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.load(folder)


def test_without_shipped_weights_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    with pytest.raises(WeightsError, match="CHATGGLM_READER_WEIGHTS"):
        weights.load()


@pytest.mark.parametrize("folder", sorted(p for p in weights.SHIPPED.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_what_ships_loads_and_says_what_it_is(folder: Path) -> None:
    loaded = weights.load(folder)
    assert loaded.name.startswith(folder.name)
    card = (folder / weights.CARD).read_text(encoding="utf-8")
    assert f"# {loaded.name}" in card
    for part in ("license: apache-2.0", "## How it was trained", "## Data and licences", "## Scores", "## Limits"):
        assert part in card, part
    assert "runs" in loaded.meta
