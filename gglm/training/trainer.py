"""The training loop: time budget, micro-batches, EMA, atomic checkpoints, exact resume, a run record."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gglm.errors import DataError, RunPaused
from gglm.model import ChatGGLM
from gglm.training.batch import collate, losses
from gglm.training.optim import set_rate, trapezoid
from gglm.training.parallel import Group, device_of
from gglm.training.precision import fastest_dtype
from gglm.training.rdrop import rdrop_losses
from gglm.training.spans import Example
from gglm.training.speed import matmul_peak, training_flops

Stream = Callable[[int, float], Sequence[Sequence[Example]]]
"""(step, progress 0…1) to the micro-batches of that step; the same arguments give the same examples."""


@dataclass
class RunSettings:
    """How a run goes on. One of ``minutes`` and ``steps`` bounds it; the schedule follows that one.

    warmup: steps, a tenth of the run at most; compile: each encoder layer by torch.compile, for
    any batch and length (a third faster on a CPU after 40 s; not tried on a GPU yet); processor_time: minutes
    are of the process's own processor time (all its threads' together), so that other work on the machine takes none
    of them; slice_minutes: save and stop after so many of the clock's (loading not counted), for machines that are
    lent in slices: the same call goes on.
    """

    out: Path
    minutes: float = 0.0
    steps: int = 0
    seed: int = 0
    decay: float = 0.6
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.998
    checkpoint_minutes: float = 5.0
    evaluate_minutes: float = 15.0
    teacher_forcing_ratio: float = 1.0
    device: str = "cpu"
    compile: bool = False
    processor_time: bool = False
    slice_minutes: float = 0.0

    def __post_init__(self) -> None:
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError("give either minutes or steps")


class Trainer:
    """Runs optimizer steps over a `Stream`, and saves to ``settings.out``.

    ``checkpoint.pt`` holds model, EMA, optimizers, step and time: a run started again with the same
    arguments goes on from it. ``metrics.jsonl`` gets a line every 20 steps. Under `torchrun` the processes
    share each step's micro-batches (`gglm.training.parallel`).

    Args:
        weights: weight of each of `losses`' names in the sum; ``rdrop`` asks for two passes (`rdrop_losses`).
        evaluate: called with the EMA model now and then; its figures go into the metrics.

    Raises:
        DataError: another process trains in the folder, or what lies there is no run that could go on.
    """

    def __init__(
        self,
        model: ChatGGLM,
        optimizers: list[torch.optim.Optimizer],
        stream: Stream,
        weights: dict[str, float],
        settings: RunSettings,
        evaluate: Callable[[ChatGGLM], dict[str, float]] | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        self.group, self.device = Group.join(settings.device), device_of(settings.device)
        self.model, self.optimizers, self.stream = model.to(self.device), optimizers, stream
        self.weights, self.settings, self.evaluate = weights, settings, evaluate
        if self.device != "cpu":
            model.compute_dtype = fastest_dtype(self.device)
        if settings.compile:
            for layer in model.encoder.layers:
                layer.compile(dynamic=True)
        self.group.start_alike(model)
        self.peak = matmul_peak(self.device, model.compute_dtype) * self.group.size
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step, self.elapsed, self.tokens, self.fetching = 0, 0.0, 0, 0.0
        self.clock = time.process_time if settings.processor_time else time.perf_counter
        self.average: dict[str, float] = {}
        settings.out.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(settings.out / ".lock", timeout=0)
        self._lock()
        try:
            if (settings.out / "checkpoint.pt").is_file():
                self._resume()
            else:
                self._write_record(record or {})
        except Exception:
            self.lock.release()
            raise

    @property
    def progress(self) -> float:
        s = self.settings
        return self.step / s.steps if s.steps else self.elapsed / (60 * s.minutes)

    def run(self) -> ChatGGLM:
        """Train to the end of the budget; returns the model with its EMA weights.

        Raises:
            RunPaused: the slice ended before; all is saved.
            DataError: as `Trainer`.
        """
        self._lock()
        try:
            return self._run()
        finally:
            self.lock.release()

    def _lock(self) -> None:
        """Two processes that save into one folder would undo each other's work."""
        if not self.group.first or self.lock.is_locked:
            return
        try:
            self.lock.acquire()
        except Timeout:
            raise DataError(f"another process is training in {self.settings.out}: wait for it or stop it") from None

    def _run(self) -> ChatGGLM:
        s, sliced = self.settings, time.monotonic()
        saved = self.elapsed
        self.model.train()
        while self.progress < 1:
            began, before = self.clock(), self.elapsed
            self._step()
            self.elapsed = self.group.of_first(self.elapsed + self.clock() - began)
            if self.step % 20 == 0:
                self._log(dict(self.average))
            if self.elapsed - saved > 60 * s.checkpoint_minutes:
                self.save()
                saved = self.elapsed
            period = 60 * s.evaluate_minutes
            if self.evaluate and self.elapsed // period > before // period:  # whatever the slices
                self._log(self._evaluate())
            if s.slice_minutes and self.group.of_first(time.monotonic() - sliced) > 60 * s.slice_minutes:
                break
        self.save()
        if self.progress < 1:
            raise RunPaused(f"{s.out}: {self.progress:.0%} done and saved; the same command goes on")
        if self.evaluate:
            self._log(self._evaluate())
        self.group.wait()
        self.model.load_state_dict(self.ema)
        return self.model.eval()

    def _step(self) -> None:
        s = self.settings
        set_rate(self.optimizers, trapezoid(self.progress, self.step, s.warmup, s.decay))
        began = self.clock()
        micro = self.stream(self.step, self.progress)
        self.fetching += self.clock() - began
        sizes = [sum(len(e.tokens) for e in examples) for examples in micro]
        tokens = 0
        for number, examples in self.group.share(micro):
            # Dropout by step and batch: neither resuming nor the number of processes changes anything.
            torch.manual_seed((s.seed * 1_000_003 + self.step) * 1009 + number)
            batch = collate(examples).to(self.device)
            compute = rdrop_losses if self.weights.get("rdrop") else losses
            parts = compute(self.model, batch, s.teacher_forcing_ratio)
            total = batch.relevant.new_zeros(())
            for name, part in parts.items():
                mean = part[0] / part[1].clamp_min(1)
                if self.weights.get(name):
                    total = total + self.weights[name] * mean
                value = float(mean.detach())
                old = self.average.get(name, value)
                self.average[name] = old + 0.02 * (value - old)
            (total * (sizes[number] / sum(sizes))).backward()
            tokens += batch.tokens.numel()
            length = self.average.get("length", float(batch.tokens.shape[1]))
            self.average["length"] = length + 0.02 * (batch.tokens.shape[1] - length)
        self.tokens += int(self.group.total(tokens))
        self.group.sum_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], s.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(s.ema, self.step / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.ema[name].lerp_(value, 1 - decay)
                else:
                    self.ema[name].copy_(value)

    def _evaluate(self) -> dict[str, float]:
        if self.evaluate is None or not self.group.first:
            return {}
        live = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        self.model.eval().to("cpu")  # where evaluations make their batches
        with torch.inference_mode():
            figures = self.evaluate(self.model)
        self.model.to(self.device).load_state_dict(live)
        self.model.train()
        return {f"eval/{k}": v for k, v in figures.items()}

    def save(self) -> None:
        """Write the checkpoint: temporary file, fsync, rename (rank 0 does)."""
        if not self.group.first:
            return
        path = self.settings.out / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        state = {
            "model": self.model.state_dict(), "ema": self.ema, "config": self.model.config.to_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step, "elapsed": self.elapsed, "tokens": self.tokens, "average": self.average,
            "fetching": self.fetching,
        }  # fmt: skip
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def _resume(self) -> None:
        path = self.settings.out / "checkpoint.pt"
        state = torch.load(path, weights_only=True, map_location=self.device)
        if "optimizers" not in state:
            raise DataError(f"{path} is a mean of runs, not a run that could go on; take another folder")
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.tokens = state["step"], state["elapsed"], state["tokens"]
        self.average, self.fetching = state["average"], state.get("fetching", 0.0)

    def _log(self, values: dict[str, float]) -> None:
        if not self.group.first:
            return
        speed = self.tokens / max(self.elapsed, 1e-9)
        flops = training_flops(self.model.config, self.average.get("length", 0.0))
        row = {
            "step": self.step, "minutes": round(self.elapsed / 60, 2), "tokens": self.tokens,
            "tokens_per_s": round(speed), "share_of_peak": round(speed * flops / self.peak, 4),
            "data_share": round(self.fetching / max(self.elapsed, 1e-9), 4),
            **{k: round(float(v), 4) for k, v in values.items()},
        }  # fmt: skip
        with (self.settings.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def _write_record(self, record: dict[str, Any]) -> None:
        if not self.group.first:
            return
        values = {
            "commit": _commit(), "machine": platform.platform(), "threads": torch.get_num_threads(),
            "processes": self.group.size, "dtype": str(self.model.compute_dtype), "matmul_peak_gflops": self.peak / 1e9,
            "torch": torch.__version__, "model": self.model.config.to_dict(),
            "parameters": self.model.count_parameters(),
            "settings": {k: str(v) for k, v in asdict(self.settings).items()}, "weights": self.weights, **record,
        }  # fmt: skip
        (self.settings.out / "run.json").write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def _commit() -> str:
    """Of the checkout that this file is in, «-dirty» where it was changed; empty for an installed package."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (Path(__file__).parents[2] / ".git").exists():
        return ""
    try:
        return subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return ""


def record_of(checkpoint: Path) -> dict[str, Any]:
    """What its run.json says; empty where there is none (a weights folder)."""
    record = checkpoint.with_name("run.json")
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return found


def data_hashes(files: Sequence[Path | None]) -> dict[str, str]:
    """SHA-256 of what a run reads, for its record: files, shards or weights folders (their large file)."""
    hashes: dict[str, str] = {}
    for given in files:
        if given is None:
            continue
        inside = [given / name for name in ("ids.npy", "model.safetensors") if (given / name).is_file()]
        for file in inside or [given]:
            with file.open("rb") as opened:
                hashes["/".join(file.parts[-3:])] = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    return hashes
