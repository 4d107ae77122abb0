"""Training a DISNet from shards: `disbench train` (paper, section 4.2)."""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from disbench.core.errors import InputError, import_extra, one_line, unknown_name
from disbench.disnet.checkpoints import (
    OLD,
    check_same_training,
    latest_state,
    load_network,
    load_state,
    read_state,
    save_network,
    save_state,
    shipped_checkpoint,
)
from disbench.disnet.method import DisnetMethod
from disbench.disnet.network import Disnet, build_network, build_network_input, train_only, trained_parameters
from disbench.disnet.options import NetworkSettings
from disbench.disnet.training.examples import Batch, EpochSampler, Examples, collate, refuse_measured_images
from disbench.disnet.training.log import ThroughputMeter, TrainingLog
from disbench.disnet.training.settings import Training
from disbench.disnet.training.two_stages import TwoStageLoss, draw_rounds
from disbench.io import addresses
from disbench.io.files import file_sha256
from disbench.shards.manifest import read_manifest
from disbench.workers import processes, threads

Benchmark = Callable[[DisnetMethod], Mapping[str, float]]  # evaluates the network during training: figures by name
Report = Callable[[int, int, Mapping[str, float]], None]
"""Receives each log line: the step, the number of steps, and the figures."""
STATE = "checkpoint"
TRAINED = "disnet.safetensors"
_NEW = ("blocks", "kept_", "corrected_", "token_norm", "features_norm")
"""Name prefixes of stage 2's parameters without initial weights."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of `train`: finished steps over all calls, seconds of this call, and the log's last line."""

    checkpoint: Path
    steps: int
    seconds: float
    figures: Mapping[str, float]


def train(
    training: Training,
    out: Path,
    *,
    benchmark: Benchmark | None = None,
    report: Report | None = None,
    device: str = "",
    until: int = 0,
) -> TrainingResult:
    """Train a network, or resume an interrupted training; on a CPU, resuming gives the same losses.

    With several processes (`accelerate launch`), each takes its share of the examples, and the first writes.

    Args:
        training: the settings, with resolved folders (`settings.resolved`).
        out: output folder: `disnet.safetensors`, `log.csv`, `checkpoint/`, `tensorboard/`.
        benchmark: called every `validate_every` steps, with the averaged weights if there are any.
        report: called with each log line.
        device: "cpu", "cuda", or "" for accelerate's choice. A process can train in only one precision.
        until: stop after this step, with a checkpoint; 0 trains to the end.

    Raises:
        InputError: data, weights or the device are missing or damaged, memory runs out, a loss is not finite, or the
            folder contains a training with other settings.
    """
    with _fast_products(training.network):
        return _Run(training, out, device).go(benchmark, report, until)


def dry_run(training: Training, out: Path, device: str = "") -> dict[str, float | str]:
    """Check a training in seconds: its data, any checkpoint in `out`, a batch, and one step's losses and gradients.

    Writes nothing except cached features. Returns figures by name; arguments and errors are those of `train`.
    """
    began = time.monotonic()
    run = _Run(replace(training, workers=0), out, device)
    with _fast_products(training.network):
        found = run.first_step()
    return {**found, "seconds": round(time.monotonic() - began, 2)}


def begin(out: Path, existing: str) -> None:
    """Handle an earlier training in a folder: "resume" keeps it, "overwrite" removes it, "fail" raises `InputError`."""
    names = (STATE, f"{STATE}{OLD}", TRAINED, "log.csv", "validation.csv", "tensorboard")
    found = [out / name for name in names if (out / name).exists()]
    if found and existing == "fail":
        raise InputError(f"{found[0]}: there is a training already; name another --out")
    for path in found if existing == "overwrite" else []:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Run:
    def __init__(self, training: Training, out: Path, device: str) -> None:
        self.training, self.out = training, out
        _keep_memory()
        if not training.allow_measured:
            refuse_measured_images(training.shards)
        self.accelerator = _accelerator(training, device)
        torch.manual_seed(training.seed)
        network, self.start = _starting_network(training)
        self.network_input = build_network_input(training.network, training.features)
        self.examples = Examples(training, network.frame, self.network_input)
        self.steps = total_steps(training, len(self.examples), self.accelerator.num_processes)
        self.network = network.to(self.accelerator.device)
        self.averages = averaged(self.network, training.ema) if training.ema else None
        groups = parameter_groups(self.network, training)
        self.optimizer = torch.optim.Adam(groups, betas=(training.betas[0], training.betas[1]), fused=True)
        self.step = self._resumed()
        loss = TwoStageLoss(self.network, training, click_threads=max(training.workers, 1))
        self.loss, self.prepared = self.accelerator.prepare(loss, self.optimizer)

    def go(self, benchmark: Benchmark | None, report: Report | None, until: int) -> TrainingResult:
        """Train to the end, or to `until`."""
        began = time.monotonic()
        log = self._log("log", self.step + 1)
        last = min(until or self.steps, self.steps)
        meter = ThroughputMeter(self.training.batch * self.training.accumulate)
        figures: Mapping[str, float] = {}
        parts: list[dict[str, float]] = []
        batches = iter(self._loader(last))
        while self.step < last:
            parts += self._one_step(batches, meter)
            self.step += 1
            meter.step()
            if self._is_due(self.training.log_every) or self.step == self.steps:
                means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
                figures = {**means, **meter.read(), "rate": float(self.optimizer.param_groups[0]["lr"])}
                parts = []
                if log is not None:
                    log.add(self.step, figures)
                    if report is not None:
                        report(self.step, self.steps, figures)
            if benchmark is not None and self._is_due(self.training.validate_every):
                self._validate(benchmark)
            if self._is_due(self.training.checkpoint_every) or self.step == last:
                self._save()
        path = self.out / TRAINED
        if log is not None:
            log.close()
            if self.step == self.steps:
                self._finish(path)
        self.accelerator.wait_for_everyone()
        return TrainingResult(path, self.step, time.monotonic() - began, figures)

    def first_step(self) -> dict[str, float | str]:
        """The first step's losses and gradients, without an update."""
        batch = _next(iter(self._loader(self.step + 1))).to(self.accelerator.device)
        parts = self._backward(batch, self._drawn_rounds(batch, 0))
        found = [p.grad.norm() for p in self.loss.parameters() if p.grad is not None]
        return {
            "examples": len(self.examples),
            "steps": self.steps,
            "steps done": self.step,
            "parameters": sum(parameter.numel() for parameter in trained_parameters(self.network).values()),
            "input": str(tuple(batch.inputs.shape)),
            "masks": str(tuple(batch.targets.shape)),
            "gradient": float(torch.stack(found).norm()),
            **parts,
        }

    def _one_step(self, batches: Iterator[Batch], meter: ThroughputMeter) -> list[dict[str, float]]:
        warmup = warmup_steps(self.training, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, warmup, group["rate"], self.training.first_rate)
        parts = []
        for part in range(self.training.accumulate):
            with meter.waiting():
                batch = _next(batches)
            try:
                batch = batch.to(self.accelerator.device)
                parts.append(self._backward(batch, self._drawn_rounds(batch, part)))
            except (MemoryError, RuntimeError) as error:
                if "memory" not in f"{type(error).__name__} {error}".lower():
                    raise
                half, twice = max(self.training.batch // 2, 1), self.training.accumulate * 2
                raise InputError(
                    f"out of memory with {self.training.batch} examples at once ({one_line(str(error))}); "
                    f"batch = {half} with accumulate = {twice} gives the same steps"
                ) from error
        if self.training.clip:
            self.accelerator.clip_grad_norm_(self.loss.parameters(), self.training.clip)
        self.prepared.step()
        self.prepared.zero_grad()
        if self.averages is not None:
            self.averages.update_parameters(self.network)
        return parts

    def _drawn_rounds(self, batch: Batch, part: int) -> list[int]:
        """The number of corrective clicks of each example; also seeds torch for the step (`drop_path`)."""
        seed = (self.training.seed, self.step, part, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        least = int(self.training.later_clicks == "protocol")
        return draw_rounds(len(batch.clicks), self.training.corrective_clicks, seed, least)

    def _backward(self, batch: Batch, rounds: list[int]) -> dict[str, float]:
        with self.accelerator.autocast():
            loss, parts = self.loss(batch, rounds)
        if not torch.isfinite(loss):
            raise InputError(
                f"step {self.step + 1}: the loss is {float(loss.detach())}; lower the learning rates, or set clip or "
                "precision"
            )
        self.accelerator.backward(loss / self.training.accumulate)
        return {"loss": float(loss.detach()), **{name: float(value) for name, value in parts.items()}}

    def _loader(self, last: int) -> DataLoader[Any]:
        training, workers = self.training, self.training.workers
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        first, end = (step * training.batch * training.accumulate for step in (self.step, last))
        return DataLoader(
            self.examples,
            batch_size=training.batch,
            sampler=EpochSampler(len(self.examples), training.seed, first, end, share),
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            multiprocessing_context=processes.CONTEXT if workers else None,
        )

    def _is_due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _log(self, name: str, step: int) -> TrainingLog | None:
        if not self.accelerator.is_main_process:
            return None
        self.out.mkdir(parents=True, exist_ok=True)
        return TrainingLog(self.out, name, step)

    @property
    def _result(self) -> Disnet:
        """The network to store: with averaged weights if there are any."""
        averages: Any = self.averages
        return self.network if averages is None else averages.module

    def _validate(self, benchmark: Benchmark) -> None:
        log = self._log("validation", self.step)
        if log is None:
            return
        network = self._result.eval()
        log.add(self.step, benchmark(DisnetMethod(network, self.network_input, str(self.accelerator.device))))
        log.close()
        network.train()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            state = (self.network, self.optimizer, self.averages, self.training, self.step, self._facts())
            save_state(self.out / STATE, *state)

    def _finish(self, path: Path) -> None:
        facts = {"steps": str(self.step), "torch": torch.__version__}
        if self.start:
            facts["started from"] = json.dumps(self.start, sort_keys=True)
        save_network(path, self._result, replace(self.training, shards=(), features=""), facts, half=True)

    def _facts(self) -> dict[str, str]:
        sources = [read_manifest(Path(source.folder)).content_hash[:16] for source in self.training.shards]
        facts = {"diverse sets": " ".join(sources), "processes": str(self.accelerator.num_processes)}
        if self.start:
            facts["weights to start from"] = self.start["sha256"][:16]
        return facts

    def _resumed(self) -> int:
        """Restore the last checkpoint, if any; returns the number of finished steps."""
        folder = latest_state(self.out / STATE)
        if folder is None:
            return 0
        state = read_state(folder)
        check_same_training(folder, state, self.training, self._facts())
        load_state(folder, self.network, self.optimizer, self.averages)
        return state.step


def parameter_groups(network: Disnet, training: Training) -> list[dict[str, Any]]:
    """Adam's parameter groups with their learning rates: stage 1, stage 2, and new layers of stage 2 or a design."""
    groups: dict[str, tuple[float, list[nn.Parameter]]] = {
        "proposal": (training.proposal_rate, []),
        "refinement": (training.refinement_rate, []),
        "new": (training.refinement_rate * training.new_layers_factor, []),
    }
    for name, parameter in trained_parameters(network).items():
        stage, _, rest = name.partition(".")
        is_new = stage == "design" or (stage == "refinement" and rest.startswith(_NEW))
        groups["new" if is_new else stage][1].append(parameter)
    return [{"params": parameters, "lr": rate, "rate": rate} for rate, parameters in groups.values() if parameters]


def total_steps(training: Training, examples: int, processes: int = 1) -> int:
    """Number of optimiser steps of a training."""
    if training.steps:
        return training.steps
    return math.ceil(training.epochs * examples / (training.batch * training.accumulate * processes))


def warmup_steps(training: Training, steps: int) -> int:
    """Number of warm-up steps in a training of `steps` steps."""
    return training.warmup_steps if training.steps else round(steps * training.warmup_epochs / training.epochs)


def learning_rate(step: int, steps: int, warmup: int, rate: float, first: float) -> float:
    """Learning rate at a step, from 0: linear warm-up from `first` to `rate`, half a cosine (paper, section 4.2)."""
    if step < warmup:
        return first + (rate - first) * step / warmup
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def averaged(network: Disnet, decay: float) -> AveragedModel:
    """A copy of a network that tracks the exponential moving average of its parameters.

    Update n uses the decay (1 + n) / (10 + n) if smaller, so that the initial weights soon lose their influence.
    """

    def average(averages: Any, current: Any, updates: Tensor | int) -> None:
        count = int(updates)
        torch._foreach_lerp_(averages, current, 1 - min(decay, count / (9 + count)))

    model = AveragedModel(network, multi_avg_fn=average)
    model.update_parameters(network)  # torch copies the weights of the first update: the initial ones
    return model


def _starting_network(training: Training) -> tuple[Disnet, dict[str, Any]]:
    start: dict[str, Any] = {}
    if not training.start:
        network = build_network(training.network)
    else:
        path = shipped_checkpoint() if training.start == "disnet" else Path(addresses.localize(training.start))
        found = load_network(path)
        if training.start_parts:
            network = build_network(training.network)
            _take_parts(network, found.network, training.start_parts, training.start)
        elif _weights_of(found.training) == _weights_of(training):
            network = found.network.train()
        else:
            raise InputError(
                f"{training.start}: another network; set the table network as in its training, or start_parts"
            )
        start = {"sha256": file_sha256(path), "training": found.training.as_dict(), **found.facts}
    train_only(network, training.trained)
    return network, start


def _take_parts(network: Disnet, other: Disnet, prefixes: tuple[str, ...], where: str) -> None:
    theirs = other.state_dict()
    taken = {name: theirs.get(name) for name in network.state_dict() if name.startswith(prefixes)}
    for name, value in taken.items():
        if value is None or value.shape != network.state_dict()[name].shape:
            raise InputError(f"{where}: its {name} does not fit; start_parts must name parts that both networks have")
    network.load_state_dict(taken, strict=False)


def _weights_of(training: Training) -> NetworkSettings:
    """The settings that determine a network's weights and architecture."""
    settings = training.network
    vit = replace(settings.vit, weights=None, revision="", drop_path=0.0)
    return replace(settings, vit=vit, weights="")


def _next(batches: Iterator[Batch]) -> Batch:
    """The next batch; removes the traceback that DataLoader prepends to a worker's error message."""
    try:
        return next(batches)
    except InputError as error:
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


def _start_worker(_: int) -> None:
    processes.die_with_parent()  # torch misses a parent that is killed while a worker starts
    threads.limit(1)
    torch.set_num_threads(1)


def _accelerator(training: Training, device: str) -> Any:
    accelerate = import_extra("accelerate", "models", "training")
    if device not in ("", "cpu", "cuda"):
        raise unknown_name("device", device, ("cpu", "cuda"))
    try:
        made = accelerate.Accelerator(mixed_precision=training.precision, cpu=device == "cpu")
    except ValueError as error:  # accelerate has one state per process
        raise InputError(
            f"precision = {training.precision}, device = {device!r}: not possible here, or not after another "
            f"training in the same process ({error})"
        ) from error
    if device and made.device.type != device:
        raise InputError(f"no device {device!r} on this machine; use cpu, or omit --device")
    return made


def _keep_memory() -> None:
    """Make glibc keep freed memory for the next step: clearing new pages costs more than most operations on them."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(parameter, 2**31 - 1)


@contextmanager
def _fast_products(settings: NetworkSettings) -> Iterator[None]:
    """Use oneDNN for the small network's float32 matrix products, which is twice as fast as MKL on AMD CPUs.

    torch uses oneDNN only if bfloat16 is allowed. Does nothing on CPUs with AMX, where oneDNN would really compute in
    bfloat16, or for the ViT, whose attention becomes slower.
    """
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)()
    if settings.architecture == "vit" or matmul is None or has_amx:
        yield
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
