"""`chatgglm embed`: one unit vector a line, of the shipped embedder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import typer
from typer.testing import CliRunner

from rag import cli_embed
from rag.embedders import load_embedder

TEXTS = ["年假有几天？", "员工每年享受带薪年假五天。", "食堂午餐十一点半开始。"]


def run(*arguments: str) -> Any:
    app = typer.Typer()
    cli_embed.register(app, {})
    return CliRunner().invoke(app, list(arguments))


def test_a_file_becomes_an_array(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.npy"
    source.write_text("\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in TEXTS), encoding="utf-8")
    done = run(str(source), "-o", str(out), "--kind", "passage", "--json")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    vectors = np.load(out, allow_pickle=False)
    assert vectors.dtype == np.float32
    assert vectors.shape == (facts["rows"], facts["dim"]) == (3, load_embedder().dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, load_embedder().encode_passages(TEXTS), atol=1e-5)
    assert run(str(source), "-o", str(out), "--kind", "query").exit_code == 0
    assert np.allclose(np.load(out), load_embedder().encode_queries(TEXTS), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".npy"] == ["out.npy"]


def test_what_cannot_be_embedded_is_told(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "甲"}\n{"title": "乙"}', encoding="utf-8")
    bad = run(str(source), "-o", str(tmp_path / "out.npy"))
    assert bad.exit_code == 1
    assert "row 2" in bad.stderr
    source.write_text('{"text": "甲"}', encoding="utf-8")
    assert "npy" in run(str(source), "-o", str(tmp_path / "out.txt")).stderr
    assert run(str(source), "-o", str(tmp_path / "no" / "out.npy")).exit_code == 1
    assert run(str(source), "-o", str(tmp_path / "out.npy"), "--kind", "title").exit_code == 2
    source.write_text("", encoding="utf-8")
    assert run(str(source), "-o", str(tmp_path / "out.npy")).exit_code == 0
    assert np.load(tmp_path / "out.npy").shape[0] == 0
