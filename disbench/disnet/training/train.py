"""Training a DISNet from shards: `disbench train` (paper, section 4.2)."""

from __future__ import annotations

import json
import math
import resource
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
from torch import nn
from torch.utils.data import DataLoader, Sampler

from disbench.core.errors import InputError, unknown_name
from disbench.disnet.checkpoints import (
    check_same_training,
    latest_state,
    load_network,
    load_state,
    save_network,
    save_state,
)
from disbench.disnet.method import DisnetMethod
from disbench.disnet.network import (
    Disnet,
    NetworkSettings,
    build_network,
    input_of,
    train_only,
    trained_parameters,
)
from disbench.disnet.training.averages import AveragedWeights
from disbench.disnet.training.examples import Batch, Examples, collate
from disbench.disnet.training.log import TrainingLog
from disbench.disnet.training.schedule import learning_rate
from disbench.disnet.training.settings import Training
from disbench.disnet.training.two_stages import TwoStageLoss, draw_rounds
from disbench.io import addresses
from disbench.io.files import file_sha256
from disbench.shards.reader import content_hash, read_manifest
from disbench.workers import threads
from disbench.workers.processes import die_with_parent

Benchmark = Callable[[DisnetMethod], Mapping[str, float]]
"""Evaluates the network in training and gives its figures by name."""
Report = Callable[[int, int, Mapping[str, float]], None]
"""Told the step, how many there are, and the figures of a line of the log."""
STATE = "checkpoint"
TRAINED = "disnet.safetensors"
_NEW = ("blocks", "kept_", "corrected_", "token_norm", "features_norm")
"""Parameters of stage 2 that start without weights, by what their names contain."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        checkpoint: the trained network's file.
        steps: done in all.
        seconds: of this call.
        figures: of the last line of the log.
    """

    checkpoint: Path
    steps: int
    seconds: float
    figures: Mapping[str, float]


class EpochSampler(Sampler[tuple[int, int]]):
    """Items (epoch, number) in an order that the seed and the epoch decide, from any step on.

    Args:
        length: of the dataset.
        seed: of the order.
        start: how many items were taken before.
        count: how many are taken in all.
        share: (rank, processes): every process takes its part of each turn.
    """

    def __init__(self, length: int, seed: int, start: int, count: int, share: tuple[int, int] = (0, 1)) -> None:
        self.length, self.seed, self.start, self.count, self.share = length, seed, start, count, share

    def __len__(self) -> int:
        """How many items are still taken by this process."""
        return max(0, self.count - self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The items."""
        rank, processes = self.share
        orders: dict[int, Any] = {}
        for place in range(self.start, self.count):
            epoch, number = divmod(place * processes + rank, self.length)
            if epoch not in orders:
                orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(self.length)}
            yield epoch, int(orders[epoch][number])


def train(
    training: Training,
    out: Path,
    *,
    benchmark: Benchmark | None = None,
    report: Report | None = None,
    device: str = "",
    until: int = 0,
    log_name: str = "log",
) -> TrainingResult:
    """Train a network, or go on with a training that was interrupted; the same steps either way.

    On a CPU a resumed training has the same losses as one in one go. With several processes (`accelerate launch`)
    each takes its share of the examples, and the first writes.

    Args:
        training: the settings, its folders found (`training_settings.resolved`).
        out: folder of the result: `disnet.safetensors`, `log.csv`, `checkpoint/`, `tensorboard/`.
        benchmark: called every `validate_every` steps, with the averaged weights if there are any.
        report: told each line of the log.
        device: "cpu", "cuda"; "" takes what accelerate finds. One process can train in one precision only.
        until: end after this step, with a checkpoint, as an interruption would; 0 goes to the end.
        log_name: of the CSV file.

    Raises:
        InputError: data, weights or the device are missing or damaged, memory does not suffice, a loss is not
            finite, the folder holds a training with other settings.
    """
    return _Run(training, out, device, log_name).go(benchmark, report, until)


def begin(out: Path, existing: str) -> None:
    """Make room for a training.

    Args:
        out: its folder.
        existing: what to do with an earlier one: "resume" leaves it, "overwrite" removes it.

    Raises:
        InputError: there is one, and `existing` is "fail".
    """
    names = (STATE, f"{STATE}.old", TRAINED, "log.csv", "validation.csv", "tensorboard")
    found = [out / name for name in names if (out / name).exists()]
    if found and existing == "fail":
        raise InputError(f"{found[0]}: there is a training already; name another --out")
    for path in found if existing == "overwrite" else []:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def total_steps(training: Training, examples: int, processes: int = 1) -> int:
    """Optimiser steps of a training."""
    if training.steps:
        return training.steps
    return math.ceil(training.epochs * examples / (training.batch * training.accumulate * processes))


def parameter_groups(network: Disnet, training: Training) -> list[dict[str, Any]]:
    """Adam's groups: stage 1, stage 2, and of stage 2 what starts without weights, each with its rate."""
    groups: dict[str, tuple[float, list[nn.Parameter]]] = {
        "proposal": (training.proposal_rate, []),
        "refinement": (training.refinement_rate, []),
        "new": (training.refinement_rate * training.new_layers_factor, []),
    }
    for name, parameter in trained_parameters(network).items():
        stage, _, rest = name.partition(".")
        is_new = stage == "refinement" and rest.startswith(_NEW)
        groups["new" if is_new else stage][1].append(parameter)
    return [{"params": parameters, "lr": rate, "rate": rate} for rate, parameters in groups.values() if parameters]


class _Run:
    """One call of `train`."""

    def __init__(self, training: Training, out: Path, device: str, log_name: str) -> None:
        self.training, self.out, self.log_name = training, out, log_name
        self.accelerator = _accelerator(training, device)
        torch.manual_seed(training.seed)
        network, self.start = _begun(training)
        self.network_input = input_of(training.network, training.features)
        self.examples = Examples(
            training.shards,
            network.frame,
            self.network_input,
            training.augmentation,
            training.network.options.outputs,
            training.seed,
        )
        self.steps = total_steps(training, len(self.examples), self.accelerator.num_processes)
        self.network = network.to(self.accelerator.device)
        self.averages = AveragedWeights(self.network, training.ema) if training.ema else None
        groups = parameter_groups(self.network, training)
        self.optimizer = torch.optim.Adam(groups, betas=(training.betas[0], training.betas[1]))
        self.step = self._taken_up()
        loss = TwoStageLoss(self.network, training, clickers=max(training.workers, 1))
        self.loss, self.prepared = self.accelerator.prepare(loss, self.optimizer)

    def go(self, benchmark: Benchmark | None, report: Report | None, until: int) -> TrainingResult:
        """Train to the end, or to `until`."""
        began = time.monotonic()
        log = self._log(self.log_name, self.step + 1)
        last = min(until or self.steps, self.steps)
        meter = _Meter(self.training.batch * self.training.accumulate)
        figures: Mapping[str, float] = {}
        parts: list[dict[str, float]] = []
        batches = iter(self._loader(last))
        while self.step < last:
            parts += self._one_step(batches, meter)
            self.step += 1
            meter.step()
            if self._due(self.training.log_every) or self.step == self.steps:
                figures = {**_means(parts), **meter.read(), "rate": self._rate()}
                parts = []
                if log is not None:
                    log.add(self.step, figures)
                if log is not None and report is not None:
                    report(self.step, self.steps, figures)
            if benchmark is not None and self._due(self.training.validate_every):
                self._validate(benchmark)
            if self._due(self.training.checkpoint_every) or self.step == last:
                self._save()
        if log is not None:
            log.close()
        path = self.out / TRAINED
        if self.step == self.steps:
            self._finish(path)
        self.accelerator.wait_for_everyone()
        return TrainingResult(path, self.step, time.monotonic() - began, figures)

    def try_one(self) -> dict[str, float | str]:
        """The first step's losses and gradients, without an update."""
        batch = _next(iter(self._loader(self.step + 1))).to(self.accelerator.device)
        parts = self._backward(batch, self._drawn_rounds(batch, 0))
        found = [p.grad.norm() for p in self.loss.parameters() if p.grad is not None]
        trained = trained_parameters(self.network).values()
        return {
            "examples": len(self.examples),
            "steps": self.steps,
            "steps done": self.step,
            "parameters": sum(parameter.numel() for parameter in trained),
            "input": str(tuple(batch.inputs.shape)),
            "masks": str(tuple(batch.targets.shape)),
            "gradient": float(torch.stack(found).norm()),
            **parts,
        }

    def _one_step(self, batches: Iterator[Batch], meter: _Meter) -> list[dict[str, float]]:
        self._set_rates()
        parts = []
        for part in range(self.training.accumulate):
            with meter.waiting():
                batch = _next(batches)
            batch = batch.to(self.accelerator.device)
            try:
                parts.append(self._backward(batch, self._drawn_rounds(batch, part)))
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "memory" not in str(error):
                    raise
                raise self._too_large(error) from error
        if self.training.clip:
            self.accelerator.clip_grad_norm_(self.loss.parameters(), self.training.clip)
        self.prepared.step()
        self.prepared.zero_grad()
        if self.averages is not None:
            self.averages.update(self.network)
        return parts

    def _drawn_rounds(self, batch: Batch, part: int) -> list[int]:
        """How many corrective clicks the examples get; torch's own draws (`drop_path`) begin anew with the step too."""
        seed = (self.training.seed, self.step, part, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        return draw_rounds(len(batch.clicks), self.training.corrective_clicks, seed)

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

    def _too_large(self, error: BaseException) -> InputError:
        words = " ".join(str(error).split())[:120]
        return InputError(
            f"memory does not suffice for {self.training.batch} examples at once ({words}); "
            f"lower batch and raise accumulate: batch = {max(self.training.batch // 2, 1)} with accumulate = "
            f"{self.training.accumulate * 2} gives the same steps"
        )

    def _loader(self, last: int) -> DataLoader[Any]:
        a_step = self.training.batch * self.training.accumulate
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        sampler = EpochSampler(len(self.examples), self.training.seed, self.step * a_step, last * a_step, share)
        workers = self.training.workers
        return DataLoader(
            self.examples,
            batch_size=self.training.batch,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )

    def _set_rates(self) -> None:
        training = self.training
        warmup = training.warmup_steps
        if not training.steps:
            warmup = round(self.steps * training.warmup_epochs / training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, warmup, group["rate"], training.first_rate)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _log(self, name: str, step: int) -> TrainingLog | None:
        """A log, in the process that writes."""
        if not self.accelerator.is_main_process:
            return None
        self.out.mkdir(parents=True, exist_ok=True)
        return TrainingLog(self.out, name, step)

    def _validate(self, benchmark: Benchmark) -> None:
        """A benchmark run of the network as it would be stored now."""
        log = self._log("validation", self.step)
        if log is None:
            return
        self.network.eval()
        method = DisnetMethod(self.network, self.network_input, str(self.accelerator.device))
        if self.averages is None:
            figures = benchmark(method)
        else:
            with self.averages.in_place(self.network):
                figures = benchmark(method)
        self.network.train()
        log.add(self.step, figures)
        log.close()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(
                self.out / STATE,
                self.network,
                self.optimizer,
                self.averages,
                self.training,
                self.step,
                self._facts(),
            )

    def _finish(self, path: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        facts = {"steps": str(self.step), "torch": torch.__version__}
        if self.start:
            facts["started from"] = json.dumps(self.start, sort_keys=True)
        settings = replace(self.training, shards=(), features="")
        if self.averages is None:
            save_network(path, self.network, settings, facts, half=True)
            return
        with self.averages.in_place(self.network):
            save_network(path, self.network, settings, facts, half=True)

    def _facts(self) -> dict[str, str]:
        """What decides the steps besides the settings."""
        sources = [content_hash(read_manifest(Path(source.folder)))[:16] for source in self.training.shards]
        facts = {"diverse sets": " ".join(sources), "processes": str(self.accelerator.num_processes)}
        if self.start:
            facts["weights to start from"] = self.start["sha256"][:16]
        return facts

    def _taken_up(self) -> int:
        folder = latest_state(self.out / STATE)
        if folder is None:
            return 0
        check_same_training(folder, self.training, self._facts())
        return load_state(folder, self.network, self.optimizer, self.averages)


def _begun(training: Training) -> tuple[Disnet, dict[str, Any]]:
    """The network as the training begins, and what is known of the file that it starts from."""
    start: dict[str, Any] = {}
    if not training.start:
        network = build_network(training.network)
    else:
        found = load_network(Path(addresses.local_text(training.start)))
        if _built(found.training) != _built(training):
            raise InputError(
                f"{training.start}: of another network than this training's; set the table network as it was there"
            )
        network = found.network.train()
        start = {
            "sha256": file_sha256(Path(training.start)),
            "training": found.training.as_dict(),
            **found.facts,
        }
    train_only(network, training.trained)
    return network, start


def _built(training: Training) -> NetworkSettings:
    """What decides which weights there are, and how they work together."""
    settings = training.network
    vit = replace(settings.vit, weights=None, revision="", drop_path=0.0)
    return replace(settings, vit=vit, weights="")


class _Meter:
    """Examples a second, share of time spent waiting for data, peak memory."""

    def __init__(self, a_step: int) -> None:
        self._a_step, self._steps, self._waited = a_step, 0, 0.0
        self._began = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time within the block is waiting."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def step(self) -> None:
        """A step is done."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """The figures since the last reading."""
        spent = max(time.monotonic() - self._began, 1e-9)
        figures = {
            "seconds": spent,
            "examples_a_second": self._steps * self._a_step / spent,
            "waiting_share": self._waited / spent,
            "peak_gib": _peak_gib(),
        }
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0
        return figures


def _peak_gib() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _next(batches: Iterator[Batch]) -> Batch:
    """The next batch; of an error in a loader process, where a traceback comes before it, the sentence alone."""
    try:
        return next(batches)
    except InputError as error:
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


def _means(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _start_worker(_: int) -> None:
    die_with_parent()  # torch's own watch misses a parent that is killed while a worker starts
    threads.limit(1)
    torch.set_num_threads(1)


def _accelerator(training: Training, device: str) -> Any:
    try:
        from accelerate import Accelerator  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            'training needs accelerate, which is not installed; run: pip install "disbench[models]"'
        ) from error
    if device not in ("", "cpu", "cuda"):
        raise unknown_name("device", device, ("cpu", "cuda"))
    try:
        made = Accelerator(mixed_precision=training.precision, cpu=device == "cpu")
    except ValueError as error:  # accelerate keeps one state in a process
        raise InputError(
            f"precision = {training.precision}, device = {device!r}: not possible here, or not after another "
            f"training in the same process ({error})"
        ) from error
    if device and made.device.type != device:
        raise InputError(f"there is no device {device!r} here; use cpu, or leave --device out")
    return made


def dry_run(training: Training, out: Path, device: str = "") -> dict[str, float | str]:
    """Check a training in seconds: its data, the shapes of a batch, one step's losses and gradients.

    Nothing is written but what a kept feature is worth; no weight changes.

    Args:
        training: as for `train`.
        out: as for `train`: a checkpoint that is there is checked too.
        device: as for `train`.

    Returns:
        What was found, by name: examples, steps, parameters, shapes, losses, the gradient's norm, seconds.

    Raises:
        InputError: as `train`.
    """
    began = time.monotonic()
    run = _Run(replace(training, workers=0), out, device, "log")
    return {**run.try_one(), "seconds": round(time.monotonic() - began, 2)}
