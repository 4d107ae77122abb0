"""Training as a user types it: train, go on, measure what came out, in one process and in two."""

from __future__ import annotations

import csv
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from disbench.disnet.checkpoints import load_network
from disbench.harness import read_run
from disbench.io import definitions
from tests.commands import Result, disbench, in_this_process

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
pytest.importorskip("accelerate")
pytestmark = pytest.mark.slow
TRAINING = """
description = "A training for a test"
shards = [{{ folder = "{shards}" }}]
steps = 4
batch = 2
warmup_steps = 1
log_every = 2
workers = 0
validate_every = 4
validation = "photos"
validation_samples = 2

[network.options]
candidates = 3

[network.vit]
input_side = 64
hidden = 32
layers = 2
heads = 4
window = 2
global_blocks = [1]
channels = 32
pixel_layers = 1
decoder_layers = 1
"""


@pytest.fixture(scope="module")
def folder(photo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user is: with a training's file."""
    place = tmp_path_factory.mktemp("here")
    (place / "tiny.toml").write_text(TRAINING.format(shards=photo_shards))
    return place


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def typed(folder: Path) -> Iterator[Command]:
    """A command in this process, where the user is: exit code, output, errors."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("DISBENCH_DATA", raising=False)
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
            monkeypatch.setenv(variable, "1")  # what --threads sets is gone with the tests
        yield in_this_process


@pytest.fixture(scope="module")
def trained(folder: Path, typed: Command) -> Path:
    """A training with two loader processes, in one go."""
    code, out, err = typed("train", "tiny.toml", "--out", "one", "--set", "workers=2", "--threads", "1")
    assert code == 0 and out.startswith("one/disnet.safetensors: 4 steps, "), err
    return folder / "one"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_its_network_and_its_logs(trained: Path) -> None:
    assert [row["step"] for row in rows(trained / "log.csv")] == ["2", "4"]
    (validated,) = rows(trained / "validation.csv")
    assert validated["step"] == "4"
    assert {"miou@1", "miou@5", "noc@85", "noc@90"} <= set(validated)
    assert load_network(trained / "disnet.safetensors").training.name == "tiny"


def test_what_came_out_is_a_method(trained: Path, typed: Command) -> None:
    command = ("run", "--method", "disnet", "--set", "checkpoint=one/disnet.safetensors")
    more = ("--dataset", "photos", "--limit", "2", "--max-clicks", "3", "--workers", "1", "--out", "run")
    code, out, err = typed(*command, *more)
    assert code == 0 and "2 samples, 6 clicks" in out, err
    stored = read_run(trained.parent / "run")
    assert stored.rows(["candidates"])["candidates"].to_pylist() == [3, 1, 1] * 2
    assert stored.record.method.options["training_seed"] == 0


def test_interrupted_and_resumed_by_the_same_command(trained: Path, typed: Command) -> None:
    """Without loader processes, too: the same weights."""
    command = ("train", "tiny.toml", "--out", "two", "--device", "cpu", "--threads", "1")
    code, out, _ = typed(*command, "--until", "3")
    assert code == 0 and out.startswith("two: 3 steps")
    code, out, _ = typed(*command)
    assert code == 0 and out.startswith("two/disnet.safetensors: 4 steps")
    one, two = (trained.parent / name / "disnet.safetensors" for name in ("one", "two"))
    settings = [load_network(path).training.as_dict() for path in (one, two)]
    assert settings[0] == settings[1] | {"workers": 2}
    weights = [load_network(path).network.state_dict() for path in (one, two)]
    assert all(bool((value == weights[1][name]).all()) for name, value in weights[0].items())
    assert len(rows(trained.parent / "two" / "validation.csv")) == 1
    code, _, err = typed(*command, "--set", "seed=1")
    assert code == 2 and err.startswith("error: two/checkpoint: ") and "seed = 0, not 1" in err
    code, _, err = typed(*command, "--existing", "fail")
    assert code == 2 and err.startswith("error: two/checkpoint: ") and err.count("\n") == 1


def test_a_dry_run(folder: Path, typed: Command) -> None:
    code, out, _ = typed("train", "tiny.toml", "--out", "dry", "--dry-run", "--device", "cpu")
    assert code == 0 and not (folder / "dry").exists()
    figures = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith("steps done"))
    assert figures["examples"] == "257" and figures["input"] == "(2, 3, 64, 64)"
    assert float(figures["loss"]) > 0 and float(figures["gradient"]) > 0


WRONG = [
    (("tiny-er",), "unknown training 'tiny-er'"),
    (("tiny.toml", "--set", "bach=3"), "did you mean 'batch'"),
    (("tiny.toml", "--set", "network.vit.input_side=100"), "input_side = 100"),
    (("tiny.toml", "--set", "validation=grabcut"), "--data"),
    (("disnet-small",), "shards/coco-hierarchy: "),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_what_a_user_gets_wrong(folder: Path, typed: Command, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = typed("train", *arguments, "--out", "wrong")
    assert code == 2 and out == ""
    assert err.startswith("error: ") and words in err and err.count("\n") == 1
    assert not (folder / "wrong" / "log.csv").exists()


def test_the_trainings_are_listed_and_profiled(typed: Command) -> None:
    code, out, _ = typed("train", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == definitions.names("baselines/configs")
    code, out, _ = typed("methods", "profile", "tiny.toml", "--clicks", "3")
    lines = out.splitlines()
    heads = "part parameters, M GFLOP, click 1 GFLOP, click 2 GFLOP, click 3"
    assert code == 0 and " ".join(lines[0].split()) == heads
    assert any(line.startswith("refinement: ") for line in lines)
    assert lines[-1].startswith("of the first click") and "100.0 %" in lines[-1]


def test_two_processes_train_one_network(folder: Path, trained: Path) -> None:
    """With the environment that `accelerate launch` gives them: each has its share of the examples, one writes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def start(rank: int) -> Result:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = ("train", "tiny.toml", "--out", "pair", "--device", "cpu", "--set", "ema=0.9")
        return disbench(*command, cwd=folder, **place)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(start, range(2)))
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert "".join(result.stdout for result in results).count("4 steps") == 1
    assert [row["step"] for row in rows(folder / "pair" / "log.csv")] == ["2", "4"]
    assert len(list((folder / "pair" / "tensorboard").iterdir())) <= 2, "of the log and of the validation"
    pair, alone = (load_network(folder / name / "disnet.safetensors").network for name in ("pair", "one"))
    others = alone.state_dict()
    assert not all(bool((value == others[name]).all()) for name, value in pair.state_dict().items())
