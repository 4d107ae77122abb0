"""Checkpoints, features and logs from strangers: finite weights of the right shapes, or a refusal; no code is run."""

from __future__ import annotations

import json
import pickle
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disbench.baselines.sam.session import stored as stored_encoding
from disbench.disnet import checkpoints
from disbench.disnet.network import Disnet, trained_parameters
from disbench.disnet.training.train import averaged
from tests.fuzz.stored_forms import changed, copied, damaged, in_a_child, result_or_refusal, spoilt
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
    checkpoints.save_network(path, network, TRAINING, {"steps": "7"}, half=True)
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
    checkpoints.save_state(folder, network, optimizer, averaged(network, 0.9), TRAINING, 3, {"world": "1"})
    return folder


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def load(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.safetensors"
        path.write_bytes(content)
        found = result_or_refusal(lambda: checkpoints.load_network(path), path)
        if found is not None:
            assert all(torch.isfinite(value).all() for value in found.network.state_dict().values())


@st.composite
def spoilt_weights(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with a damaged or changed header, or with other texts of ours in it; its tensors stay."""
    header, rest = split(content)
    how = draw(st.sampled_from(("bytes", "header", "texts")))
    if how == "bytes":
        return draw(damaged(content[: len(content) - len(rest)])) + rest
    if how == "header":
        return joined(draw(changed(header)), rest)
    texts = json.loads(header["__metadata__"]["disbench"])
    for key, text in texts.items():
        texts[key] = json.dumps(draw(changed([json.loads(text)])))[1:-1]
    header["__metadata__"]["disbench"] = json.dumps(texts)
    return joined(header, rest)


@examples(60)
@given(data=st.data())
def test_spoilt_checkpoints(checkpoint: Path, data: st.DataObject) -> None:
    load(data.draw(spoilt_weights(checkpoint.read_bytes())))


def test_settings_that_ask_for_all_memory(checkpoint: Path, tmp_path: Path) -> None:
    header, rest = split(checkpoint.read_bytes())
    texts = json.loads(header["__metadata__"]["disbench"])
    settings = json.loads(texts["training"])
    settings["network"]["vit"] |= {"hidden": 8192, "layers": 64, "heads": 64, "input_side": 4096, "channels": 2048}
    header["__metadata__"]["disbench"] = json.dumps(texts | {"training": json.dumps(settings)})
    (tmp_path / "x.safetensors").write_bytes(joined(header, rest))
    words, grown = in_a_child(checkpoints.load_network, tmp_path / "x.safetensors")
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
    name = data.draw(st.sampled_from(sorted(path.name for path in state.iterdir())))
    spoiling = spoilt if name.endswith(".json") else lambda path: spoilt_weights(path.read_bytes())
    with copied(state, **{name.partition(".")[0]: data.draw(spoiling(state / name))}) as folder:
        found = result_or_refusal(lambda: checkpoints.read_state(folder), folder)
        if found is not None:
            result_or_refusal(lambda: checkpoints.check_same_training(folder, found, TRAINING, {"world": "1"}), folder)
            result_or_refusal(lambda: checkpoints.load_state(folder, network, optimizer_of(network), None), folder)


SHAPE = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize("header", [SHAPE % ("<f4", (10**12,)), SHAPE % ("|O", (2, 3)), "((((", "[" * 5000])
def test_headers_of_features(header: str, tmp_path: Path) -> None:
    text = header.encode().ljust(118) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"x" * 24)
    made = stored_encoding(tmp_path, "x", (2, 3), lambda: np.ones((2, 3), np.float32))
    assert (made == 1).all()
