"""Data-parallel training, R-Drop, and what a run says about its speed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gglm.config import PRESETS
from gglm.tokenizer import Tokenizer
from gglm.training.batch import collate, losses
from gglm.training.rdrop import rdrop_losses
from gglm.training.speed import training_flops
from tests.gglm.conftest import examples, tiny
from tests.gglm.parallel_run import trainer


def test_two_processes_train_what_one_trains(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.gglm.parallel_run", str(tokenizer.model), str(tmp_path / "two")]
    ranks = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        one = trainer(tokenizer, tmp_path / "one")
        one.run()
        said = [rank.communicate(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    first, second = (out.strip().splitlines()[-1] for out, _ in said)
    assert first.startswith("rank 0 of 2: ")
    assert first.split(": ")[1] == second.split(": ")[1], "the processes differ"
    two = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert two["step"] == one.step == 6
    assert two["tokens"] == one.tokens
    moved = 0.0
    for name, value in one.ema.items():
        assert torch.allclose(value, two["ema"][name], atol=1e-3), name
        moved = max(moved, float((value - tiny(tokenizer).state_dict()[name]).abs().max()))
    assert moved > 0.01, "nothing was trained"
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_rdrop_draws_two_passes_together(tokenizer: Tokenizer) -> None:
    batch = collate(examples(tokenizer))
    model = tiny(tokenizer).train()
    still = rdrop_losses(model, batch)
    assert float(still["rdrop"][0].detach()) == pytest.approx(0.0, abs=1e-4), "without dropout both passes are the same"
    assert torch.allclose(still["span"], losses(model, batch)["span"])
    model.encoder.dropout = 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    apart = []
    for _ in range(12):
        torch.manual_seed(0)
        parts = rdrop_losses(model, batch)
        apart.append(float(parts["rdrop"][0].detach() / parts["rdrop"][1]))
        optimizer.zero_grad()
        (parts["rdrop"][0] / parts["rdrop"][1]).backward()
        optimizer.step()
    assert 0 < apart[-1] < 0.5 * apart[0]


def test_a_run_says_how_near_the_peak_it_came(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = trainer(tokenizer, tmp_path, rdrop=0.5)
    run.run()
    run._log(dict(run.average))
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["rdrop"] > 0
    assert row["tokens_per_s"] > 0
    assert 0 <= row["share_of_peak"] < 1
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["matmul_peak_gflops"] > 1
    assert record["processes"] == 1
    small = PRESETS["small"]
    matrices = small.encoder_layers * (4 * small.d_model**2 + 3 * small.d_model * small.d_ff) + 2 * small.d_model**2
    assert training_flops(small, 0) == 6 * matrices
    assert training_flops(small, 100) > training_flops(small, 0)
