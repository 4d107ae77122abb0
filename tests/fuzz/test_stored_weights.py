"""Checkpoints, features and logs from strangers: finite weights of the right shapes, or a refusal; no code is run."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disbench.baselines.sam.session import stored as stored_encoding
from disbench.disnet.checkpoints import (
    check_same_training,
    load_network,
    load_state,
    read_state,
    save_network,
    save_state,
)
from disbench.disnet.network import Disnet, trained_parameters
from disbench.disnet.training.log import TrainingLog
from disbench.disnet.training.train import averaged
from tests.fuzz.stored_forms import changed, damaged, in_a_child, result_or_refusal
from tests.fuzz.tools import examples
from tests.unit.disnet_tools import tiny_network, tiny_training

pytest.importorskip("transformers", reason='transformers is not here; "disbench[models]" has it')
safetensors = pytest.importorskip("safetensors.torch")
TRAINING = tiny_training(ema=0.9)


class Evil:
    """Runs a command when a pickle of it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


@pytest.fixture(scope="module")
def network() -> Disnet:
    return tiny_network()


@pytest.fixture(scope="module")
def checkpoint(network: Disnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "disnet.safetensors"
    save_network(path, network, TRAINING, {"steps": "7"}, half=True)
    return path


def optimizer_of(network: Disnet) -> torch.optim.Optimizer:
    return torch.optim.Adam(trained_parameters(network).values(), lr=1e-3)


@pytest.fixture(scope="module")
def state(network: Disnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    optimizer = optimizer_of(network)
    for parameter in trained_parameters(network).values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    folder = tmp_path_factory.mktemp("state") / "checkpoint"
    save_state(folder, network, optimizer, averaged(network, 0.9), TRAINING, 3, {"world": "1"})
    return folder


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def load(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.safetensors"
        path.write_bytes(content)
        found = result_or_refusal(lambda: load_network(path), path)
        if found is not None:
            assert all(torch.isfinite(value).all() for value in found.network.state_dict().values())


@examples(15)
@given(data=st.data())
def test_bytes_of_checkpoints(checkpoint: Path, data: st.DataObject) -> None:
    content = checkpoint.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    load(data.draw(damaged(content[:header])) + content[header:])


@examples(20)
@given(data=st.data())
def test_headers_of_checkpoints(checkpoint: Path, data: st.DataObject) -> None:
    header, rest = split(checkpoint.read_bytes())
    name = data.draw(st.sampled_from(sorted(header)))
    header |= {name: data.draw(changed({"x": header[name]})).get("x")}
    load(joined(header, rest))


def with_settings(content: bytes, change: Callable[[Any], Any]) -> bytes:
    """A checkpoint whose settings are changed."""
    header, rest = split(content)
    texts = json.loads(header["__metadata__"]["disbench"])
    settings = change(json.loads(texts["training"]))
    header["__metadata__"]["disbench"] = json.dumps(texts | {"training": json.dumps(settings)})
    return joined(header, rest)


@examples(25)
@given(data=st.data())
def test_settings_in_checkpoints(checkpoint: Path, data: st.DataObject) -> None:
    load(with_settings(checkpoint.read_bytes(), lambda settings: data.draw(changed(settings))))


BOMB = """
import sys
from pathlib import Path
import torch, transformers
from disbench.disnet.checkpoints import load_network
import disbench.disnet.network
def attempt():
    load_network(Path(sys.argv[1]))
"""


def enormous(settings: Any) -> Any:
    settings["network"]["vit"] |= {"hidden": 8192, "layers": 64, "heads": 64, "input_side": 4096, "channels": 2048}
    return settings


def test_settings_that_ask_for_all_memory(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(with_settings(checkpoint.read_bytes(), enormous))
    words, grown = in_a_child(BOMB, tmp_path / "x.safetensors")
    assert words.startswith("refused"), words
    assert grown < 500, grown


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_are_not_read(protocol: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "x"
    path.write_bytes(pickle.dumps(Evil(mark), protocol=protocol))
    load(path.read_bytes())
    torch.save({"x": Evil(mark)}, path)
    load(path.read_bytes())
    folder = tmp_path / "features"
    folder.mkdir()
    np.save(folder / "x.npy", np.array([Evil(mark)], dtype=object), allow_pickle=True)
    made = stored_encoding(folder, "x", (2, 3), lambda: np.ones((2, 3), np.float32))
    assert (made == 1).all()
    assert not mark.exists()


@examples(20)
@given(data=st.data())
def test_states_of_trainings(state: Path, network: Disnet, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(state, Path(place) / "checkpoint")
        path = folder / data.draw(st.sampled_from(sorted(entry.name for entry in folder.iterdir())))
        content = path.read_bytes()
        if path.suffix == ".json":
            content = data.draw(
                st.one_of(damaged(content), changed(json.loads(content)).map(lambda v: json.dumps(v).encode()))
            )
        else:
            header, rest = split(content)
            how = data.draw(st.sampled_from(("bytes", "header", "texts")))
            if how == "bytes":
                content = data.draw(damaged(content[:400])) + content[400:]
            elif how == "header":
                content = joined(data.draw(changed(header)), rest)
            else:
                texts = json.loads(header["__metadata__"]["disbench"])
                for key, text in texts.items():
                    texts[key] = json.dumps(data.draw(changed([json.loads(text)])))[1:-1]
                header["__metadata__"]["disbench"] = json.dumps(texts)
                content = joined(header, rest)
        path.write_bytes(content)
        found = result_or_refusal(lambda: read_state(folder), folder)
        if found is not None:
            result_or_refusal(lambda: check_same_training(folder, found, TRAINING, {"world": "1"}), folder)
            result_or_refusal(lambda: load_state(folder, network, optimizer_of(network), None), folder)


@examples(80)
@given(data=st.data())
def test_features(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        np.save(Path(place) / "x.npy", np.zeros((2, 3), np.float32))
        content = data.draw(damaged((Path(place) / "x.npy").read_bytes()))
        (Path(place) / "x.npy").write_bytes(content)
        found = stored_encoding(Path(place), "x", (2, 3), lambda: np.ones((2, 3), np.float32))
        assert found.shape == (2, 3) and found.dtype == np.float32


SHAPE = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize("header", [SHAPE % ("<f4", (10**12,)), SHAPE % ("|O", (2, 3)), "((((", "[" * 5000])
def test_headers_of_features(header: str, tmp_path: Path) -> None:
    text = header.encode().ljust(118) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"x" * 24)
    made = stored_encoding(tmp_path, "x", (2, 3), lambda: np.ones((2, 3), np.float32))
    assert (made == 1).all()


@examples(60)
@given(content=damaged(b"step,loss\n1,0.5\n2,0.25\n"))
def test_logs(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "log.csv").write_bytes(content)

        def go_on() -> None:
            log = TrainingLog(Path(place), "log", 3)
            log.add(3, {"loss": 0.1})
            log.close()

        result_or_refusal(go_on, place)
