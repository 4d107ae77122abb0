"""A method in a child process: it answers as in this one, and whatever the child does ends in one sentence."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.baselines.bridge.method import Bridge, adapter_file, child_command, provenance
from disbench.baselines.bridge.process import BridgeError
from disbench.clicks import Click
from disbench.errors import InputError
from disbench.harness import evaluate
from tests import bridge_adapter
from tests.toy_methods import Discs
from tests.toy_samples import make_samples

pytest.importorskip("cv2", exc_type=ImportError)
ADAPTER = str(Path(bridge_adapter.__file__))
CLICK = [Click(3, 4, True)]
IMAGE = np.full((20, 30, 3), 9, dtype=np.uint8)


def bridge(repo: Path, **options: Any) -> Bridge:
    return Bridge(adapter=ADAPTER, repo=str(repo), python=sys.executable, **options)


def rows_of(method: Any, samples: Any, **options: Any) -> list[tuple[Any, ...]]:
    results = evaluate(method, samples, max_clicks=9, **options)
    return [
        (r.sample, r.click, r.x, r.y, r.iou, r.kept, r.candidate_ious, r.candidate_scores, r.failure)
        for r in results.rows
    ]


def test_rows_are_those_of_the_same_method_in_this_process(tmp_path: Path) -> None:
    samples = make_samples(3)
    method = bridge(tmp_path, radius=9.0, candidates=3)
    assert rows_of(method, samples) == rows_of(Discs(9.0, 3), samples)
    assert method.versions["numpy"] == np.__version__
    method.close()


def test_several_images_may_be_open_at_once(tmp_path: Path) -> None:
    method = bridge(tmp_path)
    first, second = method.open(IMAGE), method.open(np.full((5, 6, 3), 9, dtype=np.uint8))
    assert second.predict(CLICK).masks.shape == (1, 5, 6)
    assert first.predict(CLICK).masks.shape == (1, 20, 30)
    del first, second
    third = method.open(IMAGE)  # tells the child to forget both
    assert not method._forgotten
    assert third.predict(CLICK).masks.any()
    method.close()


@pytest.mark.parametrize(
    ("fault", "words", "failed_at"),
    [
        (
            "crashes",
            "was asked to predict and ended with exit code 5; its last words: .*the peer fell over",
            7,
        ),
        ("killed", "was asked to predict and was killed by SIGKILL", 3),
        ("hangs", "was asked to predict and did not answer within 1 s", 2),
        ("raises", r"raised RuntimeError: CUDA out of memory \(bridge_adapter.py:\d+\)", 2),
        ("shape", r"answered masks of shape \(1, \d+, \d+\)", 1),
        ("scores", r"answered scores \[1.0, 0.5\] for 1 masks", 1),
        ("nan", "", 1),
    ],
)
def test_a_fault_costs_its_sample_alone(tmp_path: Path, fault: str, words: str, failed_at: int) -> None:
    samples = make_samples(3, faults=(0, 1))
    method = bridge(tmp_path, fault=fault, timeout=1.0 if fault == "hangs" else 20.0)
    found = rows_of(method, samples)
    sound = rows_of(Discs(), samples)
    troubled = samples[1].id
    assert [row for row in found if row[0] != troubled] == [row for row in sound if row[0] != troubled]
    failures = [row for row in found if row[-1] is not None]
    assert [(row[0], row[1]) for row in failures] == [(troubled, failed_at)]
    assert re.search(words, failures[0][-1]) and "\n" not in failures[0][-1]
    method.close()


def test_what_a_peer_prints_harms_nothing(tmp_path: Path) -> None:
    samples = make_samples(2, faults=(1, 1))
    method = bridge(tmp_path, fault="prints")
    assert rows_of(method, samples) == rows_of(Discs(), samples)
    method.close()


def test_one_that_is_killed_from_outside_is_started_again(tmp_path: Path) -> None:
    method = bridge(tmp_path)
    session = method.open(IMAGE)
    before = method.child._process.pid
    os.kill(before, signal.SIGKILL)
    with pytest.raises(BridgeError, match=r"was killed by SIGKILL|is gone"):
        session.predict(CLICK)
    assert method.open(IMAGE).predict(CLICK).masks.any()
    assert method.child._process.pid != before
    with pytest.raises(BridgeError, match="what it knew of this sample is gone"):
        session.predict(CLICK)
    method.close()


def test_starting_again_has_an_end(tmp_path: Path) -> None:
    method = bridge(tmp_path)
    method._command = [sys.executable, "-c", "import sys; sys.exit(4)"]
    method.close()
    for _ in range(3):
        with pytest.raises(BridgeError, match="was asked to start and ended with exit code 4"):
            method.open(IMAGE)
    with pytest.raises(BridgeError, match="could not be started 3 times in a row"):
        method.open(IMAGE)


def test_a_missing_module_is_told_at_the_start(tmp_path: Path) -> None:
    words = "ModuleNotFoundError: No module named 'no_such_module_of_a_peer'"
    with pytest.raises(InputError, match=words):
        bridge(tmp_path, fault="missing")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo Loading the model", "wrote b'Loading ' where a message was due; its standard output"),
        ("printf DSB1", "was asked to start and ended with exit code|closed its standard output"),
        ("sh -c 'sleep 60'", "was asked to start and did not answer within 0.5 s"),
        ("no-such-program-at-all", "no-such-program-at-all cannot be started"),
        ("sh -c 'echo broken >&2; exit 7'", "ended with exit code 7; its last words: broken"),
    ],
)
def test_a_program_in_another_language_that_says_nonsense(program: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Bridge(command=program, start_timeout=0.5)


def test_a_program_of_the_users_own(tmp_path: Path) -> None:
    """Written from docs/bridge.md alone: it knows nothing of the child's file."""
    program = tmp_path / "own.py"
    program.write_text(OWN)
    method = Bridge(command=f"{sys.executable} {program}")
    session = method.open(IMAGE)
    found = session.predict([Click(3, 4, True), Click(5, 6, False)])
    session.keep(0)
    assert found.masks.dtype == np.bool_ and found.masks.shape == (1, 20, 30) and found.scores is None
    assert [tuple(place) for place in np.argwhere(found.masks[0])] == [(4, 3)]
    method.close()


OWN = """
import json, struct, sys

def read(count):
    found = sys.stdin.buffer.read(count)
    if len(found) < count:
        sys.exit(0)
    return found

def write(header, content=b""):
    text = json.dumps(header).encode()
    sys.stdout.buffer.write(b"DSB1" + struct.pack("<I", len(text)) + text + content)
    sys.stdout.buffer.flush()

write({"type": "ready", "protocol": 1, "arrays": []})
while True:
    assert read(4) == b"DSB1"
    header = json.loads(read(struct.unpack("<I", read(4))[0]))
    if header["type"] == "open":
        height, width, _ = header["arrays"][0]["shape"]
        image = read(height * width * 3)
        write({"type": "opened", "arrays": []})
    elif header["type"] == "predict":
        mask = bytearray(height * width)
        for x, y, positive in header["clicks"]:
            if positive:
                mask[y * width + x] = 1
        listed = [{"dtype": "|b1", "shape": [1, height, width]}]
        write({"type": "prediction", "scores": None, "arrays": listed}, bytes(mask))
    else:
        write({"type": "kept", "arrays": []})
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adapter": "ritmm", "repo": ".", "python": sys.executable}, "unknown adapter 'ritmm'"),
        (
            {"adapter": "nowhere.py", "repo": ".", "python": sys.executable},
            "nowhere.py: there is no such file",
        ),
        ({"adapter": ADAPTER, "repo": "", "python": sys.executable}, "add --set repo=PATH"),
        ({"adapter": ADAPTER, "repo": ".", "python": ""}, "add --set python=PATH"),
        (
            {"adapter": ADAPTER, "repo": "no/where", "python": sys.executable},
            "repo = no/where: there is no such folder",
        ),
        (
            {"adapter": ADAPTER, "repo": ".", "python": "/no/python"},
            "python = /no/python: no program is there",
        ),
        ({"command": "a 'b"}, "quote it as for a shell"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        child_command(
            **({"adapter": "", "repo": "", "python": "", "checkpoint": "", "command": ""} | options)
        )


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"checkpoint = .*none\.pth: there is no such file"):
        bridge(tmp_path, checkpoint=str(tmp_path / "none.pth"))
    assert adapter_file(ADAPTER) == Path(ADAPTER)


def test_provenance(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"abc")
    found = provenance({"checkpoint": str(checkpoint), "repo": str(tmp_path)})
    assert found["checkpoint_sha256"].startswith("ba7816bf8f01cfea")
    assert found["repo_commit"] == "", "no checkout of git"
    assert provenance({}) == {}


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from disbench.baselines.bridge.method import Bridge
import numpy as np
method = Bridge(adapter={adapter!r}, repo=".", python=sys.executable, fault="hangs-always", timeout=600.0)
print(method.child._process.pid, flush=True)
session = method.open(np.zeros((4, 4, 3), dtype=np.uint8))
from disbench.clicks import Click
session.predict([Click(0, 0, True), Click(1, 1, True)])
"""


def test_no_orphan_is_left_when_the_parent_is_killed() -> None:
    """Not even one that is busy."""
    code = PARENT.format(path=sys.path, adapter=ADAPTER)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not _lives(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def _lives(process: int) -> bool:
    """Whether it runs; one that nobody has buried counts as gone."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
