"""A run from the command line: settings from a file, the mean of two runs, export."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from filelock import FileLock
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from gglm import cli, weights
from gglm.errors import DataError
from gglm.tokenizer import Tokenizer
from gglm.training.average import average
from gglm.training.corpus import build_shards
from gglm.training.finetune import FinetuneSettings
from gglm.training.overrides import override, read
from gglm.training.pretrain import PretrainSettings
from gglm.training.trainer import RunSettings
from gglm.training.write import WriteSettings
from tests.gglm.conftest import PASSAGES, Trained
from tests.gglm.test_cli import question_file

EXAMPLES = Path(__file__).parents[2] / "docs/examples/training"


def train(*args: object) -> Result:
    groups = {"eval": typer.Typer(), "train": typer.Typer()}
    cli.register(typer.Typer(), groups)
    return CliRunner().invoke(groups["train"], [str(a) for a in args])


def tune(trained: Trained, out: Path, settings: str, *more: object) -> Result:
    file, toml = question_file(out.with_suffix(".jsonl")), out.with_suffix(".toml")
    toml.write_text(settings, encoding="utf-8")
    return train("finetune", file, "--init", trained.folder, "--settings", toml, "-o", out, *(more or ("--steps", 3)))


def test_two_runs_and_their_mean(trained: Trained, tmp_path: Path) -> None:
    settings = "rows = 4\nfull = 0.5\n[passages]\nbrief = 0.5\n[run]\nwarmup = 1\nema = 0.5\n"
    states: dict[str, Any] = {}
    for seed, name in ((1, "a"), (2, "b")):
        result = tune(trained, tmp_path / name, settings, "--steps", 3, "--seed", seed)
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / name / "run.json").read_text("utf-8"))
        assert "brief=0.5" in record["finetune"]["passages"]
        assert (record["finetune"]["lr"], record["finetune"]["muon_lr"]) == ("0.0004", "0.004")  # going on
        assert {key.split("/")[-1] for key in record["data"]} == {
            f"{name}.jsonl",
            "tokenizer.model",
            "model.safetensors",
        }
        assert record["settings"]["ema"] == "0.5"
        states[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["ema"]
    result = train("average", tmp_path / "a", f"{tmp_path / 'b'}:3", "-o", tmp_path / "mean")
    assert result.exit_code == 0, result.output
    export = train(
        "export", tmp_path / "mean", "--like", trained.folder, "--int8", "-o", tmp_path / "w", "--name", "mean-1"
    )
    assert export.exit_code == 0, export.output
    loaded = weights.load(tmp_path / "w")
    assert loaded.name == "mean-1"
    assert list(loaded.meta["mean_of"].values()) == [0.25, 0.75]
    assert set(loaded.meta["runs"]) == {"a", "b"}
    for key, value in loaded.model.state_dict().items():
        if value.is_floating_point():
            mean = (states["a"][key] + 3 * states["b"][key]) / 4
            assert (value - mean).abs().max() <= max(1e-6, float(mean.abs().max()) / 250), key
    assert any(not torch.equal(states["a"][k], states["b"][k]) for k in states["a"])


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained: Trained, tmp_path: Path) -> None:
    settings = "rows = 4\n[run]\ncheckpoint_minutes = 1e-9\n"
    steps = ("--steps", 30)
    whole = tune(trained, tmp_path / "whole", settings, *steps)
    assert whole.exit_code == 0, whole.output
    shutil.copy(tmp_path / "whole.jsonl", tmp_path / "killed.jsonl")
    code = (
        "import typer; from gglm import cli; groups = {'eval': typer.Typer(), 'train': typer.Typer()}; "
        "cli.register(typer.Typer(), groups); groups['train']()"
    )
    command = [
        sys.executable, "-c", code, "finetune", tmp_path / "killed.jsonl", "--init", trained.folder, *steps,
        "--settings", tmp_path / "whole.toml", "-o", tmp_path / "killed",
    ]  # fmt: skip
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/checkpoint.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0
    before = torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)
    assert 0 < before["step"] < 30
    resumed = tune(trained, tmp_path / "killed", settings, *steps)
    assert resumed.exit_code == 0, resumed.output
    ours, theirs = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "killed"))
    assert theirs["step"] == ours["step"] == 30
    for key, value in ours["ema"].items():
        assert torch.allclose(value, theirs["ema"][key], atol=1e-6), key


def test_one_run_in_a_folder_at_a_time(trained: Trained, tmp_path: Path) -> None:
    with FileLock(tmp_path / "run" / ".lock"):  # as another process would hold it
        refused = tune(trained, tmp_path / "run", "rows = 4\n", "--steps", 1)
    assert refused.exit_code != 0
    assert "another process is training in" in refused.output
    assert not (tmp_path / "run/checkpoint.pt").exists()
    for steps in (1, 2):  # the second goes on from the first
        assert tune(trained, tmp_path / "run", "rows = 4\n", "--steps", steps).exit_code == 0
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["step"] == 2


def test_pretraining_goes_on_from_weights(trained: Trained, tmp_path: Path) -> None:
    shards, tokenizer = tmp_path / "shards", trained.folder / weights.TOKENIZER
    build_shards(iter([p * 4 for p in PASSAGES] * 8), Tokenizer(tokenizer), shards)
    given = (shards, "--tokenizer", tokenizer, "--steps", 1)
    slow = tmp_path / "slow.toml"
    slow.write_text("rows = 2\nlr = 0.0\nmuon_lr = 0.0\n", encoding="utf-8")
    result = train("pretrain", *given, "--init", trained.folder, "-o", tmp_path / "run", "--settings", slow)
    assert result.exit_code == 0, result.output
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["ema"]
    before = weights.load(trained.folder).model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    record = json.loads((tmp_path / "run/run.json").read_text("utf-8"))
    assert any(key.endswith("model.safetensors") for key in record["data"])
    for wrong, named in (
        (("--init", tmp_path / "nothing"), "does not exist"),
        (("--init", trained.folder, "--vectors", tmp_path / "vectors.npz"), "--vectors begins anew"),
    ):
        refused = train("pretrain", *given, *wrong, "-o", tmp_path / "refused")
        assert refused.exit_code != 0
        assert named in " ".join(refused.output.split())


def test_a_frozen_table_is_not_stored_again(trained: Trained, tmp_path: Path) -> None:
    """What `train write` leaves as it was, `train export --borrow` leaves out."""
    pairs, toml, run = tmp_path / "pairs.jsonl", tmp_path / "frozen.toml", tmp_path / "run"
    pairs.write_text('{"zh": "总部在哪里？", "en": "where"}\n' * 4, encoding="utf-8")
    toml.write_text('frozen = ["encoder.embedding."]\n', encoding="utf-8")
    lender = Path(shutil.copytree(trained.folder, tmp_path / "reader"))
    tokenizer = lender / weights.TOKENIZER
    result = train(
        "write", "--source", f"translation={pairs}", "--tokenizer", tokenizer, "--init", lender, "--unfreeze",
        "--settings", toml, "-o", run, "--steps", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    out = tmp_path / "translator"
    result = train(
        "export", run, "-o", out, "--name", "t-1", "--tokenizer", tokenizer, "--task", "翻译", "--borrow", lender
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = weights.load(lender).model.state_dict(), weights.load(out).model.state_dict()
    stored = load_file(out / weights.MODEL)
    table = "encoder.embedding.token.weight"
    assert table not in stored
    assert torch.equal(before[table], after[table])
    assert not torch.equal(before["decoder.layers.0.cross.query.weight"], after["decoder.layers.0.cross.query.weight"])
    assert not torch.equal(
        before["encoder.layers.0.attention.qkv.weight"], after["encoder.layers.0.attention.qkv.weight"]
    )


def test_scheduled_sampling_is_a_setting(trained: Trained, tmp_path: Path) -> None:
    file, losses = question_file(tmp_path / "qa.jsonl"), {}
    for ratio in (1.0, 0.5):
        out, toml = tmp_path / f"r{ratio}", tmp_path / f"r{ratio}.toml"
        toml.write_text(f"rows = 8\ndropout = 0.0\n[run]\nteacher_forcing_ratio = {ratio}\n", encoding="utf-8")
        begun = ("--preset", "tiny", "--tokenizer", trained.folder / weights.TOKENIZER)  # its own tokens are wrong ones
        result = train("finetune", file, *begun, "--settings", toml, "-o", out, "--steps", 3, "--answers", 1)
        assert result.exit_code == 0, result.output
        losses[ratio] = torch.load(out / "checkpoint.pt", weights_only=True)["average"]["write"]
    assert all(math.isfinite(loss) for loss in losses.values())
    assert losses[0.5] != losses[1.0]  # some inputs were the model's own tokens


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"stepz": 1}, "no stepz"),
        ({"decay": "soon"}, "decay = 'soon'"),
        ({"out": {"x": 1}}, "out = "),
        ({"seed": True}, "seed = True"),
        ({"seed": "7"}, "seed = '7'"),
        ({"minutes": 3.0}, "either minutes or steps"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        override(RunSettings(Path("x"), steps=1), values)


@pytest.mark.parametrize(
    ("name", "made", "rest"),
    [
        ("reader", FinetuneSettings, [[]]),
        ("base", PretrainSettings, [Path("shards")]),
        ("translator", WriteSettings, [Path("reader"), []]),
    ],
)
def test_the_examples_settings_are_settings(name: str, made: type, rest: list[Any], tmp_path: Path) -> None:
    settings = made(RunSettings(tmp_path, steps=1), tmp_path, *rest)
    changed = override(settings, read(EXAMPLES / f"{name}.toml"))
    assert changed != settings
    assert subprocess.run(["sh", "-n", EXAMPLES / "gglm-small.sh"]).returncode == 0


def test_a_new_model_begins_with_a_preset_and_all_else_with_what_ships(trained: Trained, tmp_path: Path) -> None:
    file = question_file(tmp_path / "q.jsonl")
    tokenizer = ("--tokenizer", trained.tokenizer.model)
    new = train("finetune", file, *tokenizer, "--preset", "tiny", "--steps", 1, "-o", tmp_path / "new")
    assert new.exit_code == 0, new.output
    record = json.loads((tmp_path / "new/run.json").read_text("utf-8"))
    assert (record["finetune"]["init"], record["finetune"]["lr"]) == ("None", "0.0015")
    assert record["model"]["d_model"] == 64
    other = train("finetune", file, *tokenizer, "--steps", 1, "-o", tmp_path / "shipped")
    assert other.exit_code == 1
    assert "another tokenizer" in other.stderr  # the default is to go on from gglm-small
    gone = train("finetune", file, "--init", tmp_path / "gone", "--steps", 1, "-o", tmp_path / "x")
    assert gone.exit_code == 1
    assert "gone does not exist" in gone.stderr


def test_evaluations_come_on_time_whatever_the_slices(trained: Trained, tmp_path: Path) -> None:
    settings = "rows = 2\n[run]\nevaluate_minutes = 1e-9\nslice_minutes = 1e-9\n"
    dev = ("--dev", question_file(tmp_path / "dev.jsonl"))
    for step in range(1, 4):
        result = tune(trained, tmp_path / "run", settings, "--steps", 3, *dev)
        assert result.exit_code == (step < 3), result.output
        assert f"{step / 3:.0%} done" in result.stderr or step == 3
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows if any(key.startswith("eval/") for key in row)] == [1, 2, 3, 3]


def test_what_cannot_work_is_refused(trained: Trained, tmp_path: Path) -> None:
    bad = tune(trained, tmp_path / "a", "rows = [")
    assert bad.exit_code == 1
    assert "cannot be read as TOML" in bad.stderr
    both = tune(trained, tmp_path / "a", "", "--steps", 3, "--preset", "tiny")
    assert both.exit_code == 2
    option = tune(trained, tmp_path / "a", "lora = 4\n[run]\nsteps = 2", "--steps", 3)
    assert option.exit_code == 1
    assert "give lora, steps as options" in option.stderr
    lora = train("finetune", tmp_path / "a.jsonl", "--lora", 2, "--preset", "tiny", "--steps", 1)
    assert lora.exit_code == 2
    missing = train("average", trained.folder, tmp_path / "nothing", "-o", tmp_path / "m")
    assert missing.exit_code == 1
    assert "does not exist" in missing.stderr
    single = train("average", trained.folder, "-o", tmp_path / "m")
    assert single.exit_code == 1
    shipped = train("average", trained.folder, "gglm-small", "-o", tmp_path / "m")
    assert shipped.exit_code == 1
    assert "different shapes" in shipped.stderr
    assert train("average", "x:much", "y", "-o", tmp_path / "m").exit_code == 2
    assert train("average", f"{trained.folder}:nan", trained.folder, "-o", tmp_path / "m").exit_code == 1
    assert not (tmp_path / "m").exists()


def test_a_mean_is_not_written_over_a_run(trained: Trained, tmp_path: Path) -> None:
    parts = (trained.folder, trained.folder)
    assert train("average", *parts, "-o", tmp_path / "a:b").exit_code == 0
    again = train("average", *parts, "-o", tmp_path / "a:b")
    assert again.exit_code == 1
    assert "holds a checkpoint already" in again.stderr
    onto = tune(trained, tmp_path / "a:b", "", "--steps", 1)
    assert onto.exit_code == 1
    assert "a mean of runs" in onto.stderr
    assert train("average", tmp_path / "a:b", trained.folder, "-o", tmp_path / "c").exit_code == 0


def test_models_that_count_other_bigrams_have_no_mean(tmp_path: Path) -> None:
    from gglm.config import PRESETS, GGLMConfig
    from gglm.model import ChatGGLM

    config = GGLMConfig.from_dict({**PRESETS["tiny"].to_dict(), "vocab_size": 64, "bigrams": 8})
    for name, first in (("a", 1), ("b", 2)):
        model = ChatGGLM(config)
        model.encoder.embedding.bigram_keys.copy_(torch.arange(first, first + 8))
        (tmp_path / name).mkdir()
        torch.save({"config": config.to_dict(), "ema": model.state_dict()}, tmp_path / name / "checkpoint.pt")
    with pytest.raises(DataError, match="bigrams"):
        average([(tmp_path / n / "checkpoint.pt", 1.0) for n in ("a", "b")], tmp_path / "m")
