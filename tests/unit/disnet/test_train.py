"""Training the tiny network on the photos: it learns, goes on where it was, and says what is wrong in one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.disnet.checkpoints import load_network, save_network
from disbench.disnet.method import DisnetMethod
from disbench.disnet.network import Disnet, build_network, trained_parameters
from disbench.disnet.options import ClickAttentionOptions, NetworkSettings
from disbench.disnet.training import train as training_of
from disbench.disnet.training.examples import EpochSampler
from disbench.disnet.training.two_stages import TwoStageLoss
from disbench.harness import evaluate
from tests.refusals import refuses
from tests.unit.disnet_tools import tiny_network, tiny_settings, tiny_training
from tests.unit.shard_tools import SHARD, change_manifest, size_and_hash

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')


def test_rates_by_hand_and_beyond_the_end() -> None:
    """Four steps up from 1 to 5, then eight down; the cosine's quarter, half and three quarters."""
    rates = [training_of.learning_rate(step, 12, 4, 5.0, 1.0) for step in range(12)]
    assert rates[:5] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rates[6] == pytest.approx(2.5 * (1 + math.sqrt(0.5)))
    assert rates[8] == pytest.approx(2.5)
    assert rates[10] == pytest.approx(2.5 * (1 - math.sqrt(0.5)))
    assert training_of.learning_rate(3, 3, 3, 1.0, 0.1) == 1.0
    assert training_of.learning_rate(10, 10, 0, 1.0, 0.1) == pytest.approx(0, abs=1e-12)


def test_steps_of_a_training() -> None:
    training = tiny_training(steps=0, epochs=2.5, batch=4, accumulate=2, warmup_epochs=0.5)
    assert training_of.total_steps(training, 257) == math.ceil(2.5 * 257 / 8)
    assert training_of.total_steps(training, 257, processes=4) == math.ceil(2.5 * 257 / 32)
    assert training_of.warmup_steps(training, 100) == 20
    assert (training_of.total_steps(tiny_training(), 257), training_of.warmup_steps(tiny_training(), 6)) == (6, 2)


def test_groups_and_rates() -> None:
    torch.manual_seed(0)
    training = tiny_training(proposal_rate=1.0, refinement_rate=2.0, new_layers_factor=10.0)
    vit = tiny_network()
    groups = training_of.parameter_groups(vit, training)
    assert [group["rate"] for group in groups] == [1.0, 20.0], "the ViT's whole stage 2 is new"
    sam = build_network(NetworkSettings(architecture="sam"), pretrained=False)
    groups = training_of.parameter_groups(sam, training)
    assert [group["rate"] for group in groups] == [1.0, 2.0, 20.0]
    names = {id(weights): name for name, weights in sam.named_parameters()}
    sorted_names = [[names[id(weights)] for weights in group["params"]] for group in groups]
    assert all(name.startswith("proposal.") for name in sorted_names[0])
    assert all(("block" in n or "kept_" in n or "corrected" in n or "_norm." in n) for n in sorted_names[2])
    assert any("two_way" in name for name in sorted_names[1])
    assert sum(map(len, sorted_names)) == sum(p.requires_grad for p in sam.parameters())
    one_stage = training_of.parameter_groups(tiny_network(first_click=False), training)
    assert [group["rate"] for group in one_stage] == [1.0]


def fill(network: Disnet, number: float) -> None:
    with torch.no_grad():
        for weights in trained_parameters(network).values():
            weights.fill_(number)


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9, 0.999])
def test_the_average_written_out(decay: float) -> None:
    """Every step's weights times the later decays; early decays are smaller. Fixed weights stay as they are."""
    network = tiny_network(blocks=0)
    network.proposal.get_submodule("objectness").requires_grad_(False)
    fixed = network.proposal.get_parameter("objectness.weight").clone()
    fill(network, 100)
    averages = training_of.averaged(network, decay)
    values, decays = [100.0], []
    for number in range(1, 9):
        fill(network, number)
        averages.update_parameters(network)
        values.append(float(number))
        decays.append(min(decay, number / (9 + number)))
    expected = values[0] * torch.tensor(decays).prod()
    for place, value in enumerate(values[1:]):
        expected += value * (1 - decays[place]) * torch.tensor(decays[place + 1 :]).prod()
    module = averages.module
    assert set(trained_parameters(module)) == set(trained_parameters(network))
    for found in trained_parameters(module).values():
        assert torch.allclose(found, expected)
    assert torch.equal(module.get_parameter("proposal.objectness.weight"), fixed)
    assert all((own == 8).all() for own in trained_parameters(network).values()), "the network keeps its own"


accelerate = pytest.importorskip("accelerate")
TIMES = ("seconds", "examples_a_second", "waiting_share", "peak_gib")
STEPS = 4


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Accelerate keeps one precision a process; each test is a process of its own to it."""
    accelerate.state.AcceleratorState._reset_state()
    yield
    accelerate.state.AcceleratorState._reset_state()


@pytest.fixture(autouse=True, scope="module")
def _no_board() -> Iterator[None]:
    """Without TensorBoard, which has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("disbench.disnet.training.log._board", lambda folder: None)
        yield


def trained(out: Path, shards: Path, until: int = 0, **changes: Any) -> list[dict[str, str]]:
    """The log of a training, without what times differ in."""
    training_of.train(tiny_training(shards, **({"steps": STEPS} | changes)), out, device="cpu", until=until)
    return log_of(out)


def log_of(out: Path, name: str = "log") -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def numbers(rows: list[dict[str, str]], name: str = "loss") -> list[float]:
    return [float(row[name]) for row in rows]


@pytest.fixture(scope="module")
def whole(photo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one go, with averaged weights."""
    out = tmp_path_factory.mktemp("whole")
    trained(out, photo_shards, ema=0.9)
    return out


def test_what_a_training_leaves(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {"log.csv", "disnet.safetensors", "checkpoint"}
    rows = log_of(whole)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    parts = {"mask", "dice", "objectness", "earlier", "refined_normalized_focal"}
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[part]) for part in parts), rel=1e-4)
        assert 0 <= float(row["iou1"]) <= 1 and 0 <= float(row["iou2"]) <= 1
    assert numbers(rows, "rate") == pytest.approx([1e-5, (1e-5 + 1e-3) / 2, 1e-3, 5e-4], rel=1e-4)
    found = load_network(whole / "disnet.safetensors")
    assert found.facts["steps"] == "4"
    assert found.training == tiny_training(steps=STEPS, ema=0.9), "its settings, without folders of data"
    stored = load_network(whole / "disnet.safetensors").network.state_dict()
    state = load_network(whole / "checkpoint" / "network.safetensors").network.state_dict()
    from safetensors.torch import load_file

    averages = load_file(whole / "checkpoint" / "averages.safetensors")
    assert all(torch.equal(stored[name], value.half().float()) for name, value in averages.items())
    assert not all(torch.equal(state[name], value) for name, value in averages.items())


def test_a_training_can_start_from_another_and_change_a_part(whole: Path, photo_shards: Path, tmp_path: Path) -> None:
    start = whole / "disnet.safetensors"
    settings: dict[str, Any] = {"start": str(start), "trained": ("proposal.objectness",), "ema": 0.5}
    rows = trained(tmp_path, photo_shards, until=2, **settings)
    assert "refined_normalized_focal" not in rows[0] and "iou2" not in rows[0]
    trained(tmp_path, photo_shards, **settings)
    before, after = load_network(start), load_network(tmp_path / "disnet.safetensors")
    changed = {
        name
        for name, value in after.network.state_dict().items()
        if not torch.equal(value, before.network.state_dict()[name])
    }
    assert changed and all(name.startswith("proposal.objectness") for name in changed)
    assert (tmp_path / "disnet.safetensors").stat().st_size < 1.05 * start.stat().st_size, "half precision too"
    known = json.loads(after.facts["started from"])
    assert known["steps"] == "4" and known["training"]["name"] == "tiny"


def test_a_training_can_take_a_part_of_another_network(
    whole: Path, photo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here of the shipped one, by its name."""
    start = whole / "disnet.safetensors"
    monkeypatch.setattr("disbench.disnet.training.train.shipped_checkpoint", lambda: start)
    settings: dict[str, Any] = {"start": "disnet", "trained": ("refinement",), "network": tiny_settings(mca=False)}
    trained(tmp_path, photo_shards, **settings, start_parts=("proposal",))
    theirs, found = (load_network(path).network for path in (start, tmp_path / "disnet.safetensors"))
    same = [
        torch.equal(value, theirs.proposal.state_dict()[name]) for name, value in found.proposal.state_dict().items()
    ]
    assert all(same) and not found.options.mca
    with pytest.raises(InputError, match=r"its refinement\.blocks\.0\.attention\."):
        other = {**settings, "network": tiny_settings(blocks=1, attention=ClickAttentionOptions(separate_values=True))}
        trained(tmp_path / "other", photo_shards, **other, start_parts=("refinement",))


def test_what_a_training_cannot_start_from(whole: Path, photo_shards: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    shutil.copy(whole / "disnet.safetensors", start)
    settings: dict[str, Any] = {"start": str(start), "until": 1}
    refuses("another network", lambda: trained(tmp_path, photo_shards, **settings, network=tiny_settings(mca=False)))
    refuses("'decoder'; they begin with proposal", trained, tmp_path, photo_shards, **settings, trained=("decoder",))
    with pytest.raises(InputError, match=r"nowhere\.safetensors"):
        trained(tmp_path, photo_shards, start=str(tmp_path / "nowhere.safetensors"))
    trained(tmp_path, photo_shards, **settings)
    other = load_network(start)
    with torch.no_grad():
        next(other.network.parameters()).add_(1)
    save_network(start, other.network, other.training, {}, half=True)
    refuses("with weights to start from = ", lambda: trained(tmp_path, photo_shards, start=str(start)))


@pytest.fixture
def same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two examples, again and again."""
    own = EpochSampler.__iter__
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: ((0, n % 2 * 40) for n, _ in enumerate(own(self))))


@pytest.mark.usefixtures("same_examples")
def test_it_learns(photo_shards: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 16, "proposal_rate": 5e-3, "refinement_rate": 5e-3}
    rows = trained(tmp_path, photo_shards, corrective_clicks=0, **settings)
    for name in ("loss", "refined_normalized_focal"):
        losses = numbers(rows, name)
        assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_resumed_it_is_what_it_is_in_one_go(whole: Path, photo_shards: Path, tmp_path: Path) -> None:
    """The same lines and the same bytes; interrupted before a line, and killed after a checkpoint."""
    first = trained(tmp_path, photo_shards, until=3, ema=0.9)
    assert [row["step"] for row in first] == ["1", "2", "3"]
    assert not (tmp_path / "disnet.safetensors").exists()
    assert trained(tmp_path, photo_shards, ema=0.9) == log_of(whole)
    for name in ("disnet.safetensors", "checkpoint/network.safetensors", "checkpoint/averages.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    before = (tmp_path / "disnet.safetensors").read_bytes()
    assert trained(tmp_path, photo_shards, ema=0.9) == log_of(whole), "there is nothing left to do"
    assert (tmp_path / "disnet.safetensors").read_bytes() == before


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of the gradient at each step, filled while it trains."""
    found: list[float] = []
    step = torch.optim.Adam.step

    def stepped(self: torch.optim.Adam, *given: Any, **named: Any) -> Any:
        gradients = [weights.grad for group in self.param_groups for weights in group["params"]]
        found.append(float(torch.stack([own.norm() for own in gradients]).norm()))
        return step(self, *given, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    return found


def test_accumulation(photo_shards: Path, tmp_path: Path, norms: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """One example twice: the gradient of two equal batches is that of one."""
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: iter([(0, 5)] * len(self)))
    for accumulate in (1, 2):
        settings: dict[str, Any] = {"steps": 1, "batch": 1, "corrective_clicks": 0, "accumulate": accumulate}
        trained(tmp_path / str(accumulate), photo_shards, **settings)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_clipped_gradient_has_the_norm_asked_for(photo_shards: Path, tmp_path: Path, norms: list[float]) -> None:
    trained(tmp_path / "clipped", photo_shards, steps=1, clip=0.5)
    trained(tmp_path / "free", photo_shards, steps=1)
    assert norms[0] == pytest.approx(0.5, rel=1e-3) and norms[1] > 1


@pytest.mark.parametrize("processes", [1, 3])
def test_every_set_comes_once_an_epoch(processes: int) -> None:
    """Each process takes its turn; from the middle on the order is what it would have been."""
    length, count = 10, 21
    shares = [list(EpochSampler(length, 5, 0, count, (rank, processes))) for rank in range(processes)]
    order = [shares[place % processes][place // processes] for place in range(count * processes)]
    for epoch in range(count * processes // length):
        items = order[epoch * length : (epoch + 1) * length]
        assert [own_epoch for own_epoch, _ in items] == [epoch] * length
        assert Counter(number for _, number in items) == Counter(range(length))
    assert order[:length] != order[length : 2 * length]
    for start in (0, 4, 13, count):
        later = EpochSampler(length, 5, start, count, (0, processes))
        assert list(later) == shares[0][start:] and len(later) == count - start
    assert list(EpochSampler(length, 6, 0, count)) != list(EpochSampler(length, 5, 0, count))


def test_other_sets_are_not_gone_on_with(whole: Path, photo_shards: Path, tmp_path: Path) -> None:
    """The folder of the shards may have another name, but not another content."""
    moved = tmp_path / "moved"
    shutil.copytree(photo_shards, moved)
    assert trained(whole, moved, ema=0.9) == trained(whole, photo_shards, ema=0.9)
    pq.write_table(pq.read_table(moved / SHARD), moved / SHARD, compression="gzip")
    change_manifest(moved, lambda manifest: manifest["files"][0].update(size_and_hash(moved / SHARD)))
    refuses(r"diverse sets = ", trained, whole, moved, ema=0.9)


def test_what_is_there_already(tmp_path: Path) -> None:
    training_of.begin(tmp_path / "none", "fail")
    assert not (tmp_path / "none").exists()
    for name in ("checkpoint", "tensorboard"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / "log.csv").write_text("step\n")
    (tmp_path / "mine.txt").write_text("keep me")
    refuses("checkpoint: there is a training already; name another --out", training_of.begin, tmp_path, "fail")
    training_of.begin(tmp_path, "resume")
    assert len(list(tmp_path.iterdir())) == 4
    training_of.begin(tmp_path, "overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


OUT_OF_MEMORY = [
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\n you tried 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory(photo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(TwoStageLoss, "forward", Mock(side_effect=error))
    refuses(r"batch = 2 with accumulate = 6", trained, tmp_path, photo_shards, batch=4, accumulate=3)


def test_errors_of_a_step(photo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = torch.tensor(math.inf, requires_grad=True)
    monkeypatch.setattr(TwoStageLoss, "forward", lambda *_: (infinite, {}))
    refuses("step 1: the loss is inf", trained, tmp_path, photo_shards)
    monkeypatch.setattr(TwoStageLoss, "forward", Mock(side_effect=RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trained(tmp_path, photo_shards)


def test_an_error_of_a_loader_process_is_one_line() -> None:
    """DataLoader puts the process and its traceback before it."""

    def batches() -> Iterator[Any]:
        raise InputError(
            "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            '  File "examples.py", line 1, in f\ndisbench.errors.InputError: a.png: no such image\n'
        )
        yield

    refuses(r"^a.png: no such image$", lambda: training_of._next(batches()))


def test_devices_and_precisions(photo_shards: Path, tmp_path: Path) -> None:
    training = tiny_training(photo_shards)
    refuses("unknown device 'gpu'; did you mean 'cpu'", training_of.train, training, tmp_path, device="gpu")
    if not torch.cuda.is_available():
        refuses("no device 'cuda' on this machine; use cpu", training_of.train, training, tmp_path, device="cuda")
    training_of.dry_run(training, tmp_path, "cpu")
    with pytest.raises(InputError, match=r"precision = bf16.*not after another training in the same process"):
        training_of.dry_run(dataclasses.replace(training, precision="bf16"), tmp_path, "cpu")


def test_the_network_is_validated_as_it_would_be_stored(photo_shards: Path, tmp_path: Path, whole: Path) -> None:
    """On the photos, with the averaged weights, every second step; and training goes on as without it."""
    source = open_dataset("photos", None, [])
    samples = [source.read(number) for number in (0, 100)]
    weights: list[dict[str, torch.Tensor]] = []

    def benchmark(method: DisnetMethod) -> Mapping[str, float]:
        assert not method.network.training
        weights.append({name: value.clone() for name, value in method.network.state_dict().items()})
        curve = evaluate(method, samples, max_clicks=2).miou_curve()
        return {f"miou@{click}": float(value) for click, value in enumerate(curve, start=1)}

    training = tiny_training(photo_shards, steps=STEPS, ema=0.9, validate_every=2, validation="photos")
    training_of.train(training, tmp_path, benchmark=benchmark, device="cpu")
    rows = log_of(tmp_path, "validation")
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("miou@1", "miou@2"))
    stored = load_network(tmp_path / "disnet.safetensors").network.state_dict()
    assert all(torch.equal(stored[name], value.half().float()) for name, value in weights[1].items())
    assert log_of(tmp_path) == log_of(whole)
