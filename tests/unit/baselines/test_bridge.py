"""A method in a child process: it answers as in this one, and any fault of the child ends in one sentence."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disbench.baselines.bridge.method import Bridge, BridgeError, child_command
from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click
from disbench.core.prediction import MethodError
from disbench.harness import evaluate
from disbench.harness.tasks import checked_candidates
from tests import bridge_adapter
from tests.refusals import refuses
from tests.toy_methods import Discs
from tests.toy_samples import make_samples

ADAPTER = str(Path(bridge_adapter.__file__))
CLICK = [Click(3, 4, True)]
IMAGE = np.full((20, 30, 3), 9, dtype=np.uint8)


Maker = Callable[..., Bridge]


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Maker]:
    """Makes bridges to the adapter of these tests, or to the program `command`; all are closed at the end."""
    made: list[Bridge] = []

    def make(**options: Any) -> Bridge:
        own = {} if "command" in options else {"adapter": ADAPTER, "repo": str(tmp_path), "python": sys.executable}
        made.append(Bridge(**own, **options))
        return made[-1]

    yield make
    for method in made:
        method.close()


def rows_of(method: Any, samples: Any, **options: Any) -> list[tuple[Any, ...]]:
    results = evaluate(method, samples, max_clicks=9, **options)
    return [
        (r.sample, r.click, r.x, r.y, r.iou, r.kept, r.candidate_ious, r.candidate_scores, r.failure)
        for r in results.rows
    ]


def test_rows_are_those_of_the_same_method_in_this_process(bridge: Maker) -> None:
    samples = make_samples(3)
    method = bridge(radius=9.0, candidates=3)
    assert rows_of(method, samples) == rows_of(Discs(9.0, 3), samples)
    assert method.versions["numpy"] == np.__version__
    samples = make_samples(2, faults=(1, 1))
    method = bridge(fault="prints")
    assert rows_of(method, samples) == rows_of(Discs(), samples)


FAULTS = [
    ("crashes", 7, "ended with exit code 5; its last words: .*the peer fell over"),
    ("killed", 3, "was killed by SIGKILL"),
    ("hangs", 2, "did not answer within 1 s"),
    ("raises", 2, r"raised RuntimeError: CUDA out of memory \(bridge_adapter.py:\d+\)"),
]


@pytest.mark.parametrize(("fault", "failed_at", "words"), FAULTS)
def test_a_fault_costs_its_sample_alone(bridge: Maker, fault: str, words: str, failed_at: int) -> None:
    samples = make_samples(3, faults=(0, 1))
    method = bridge(fault=fault, timeout=1.0 if fault == "hangs" else 20.0)
    found = rows_of(method, samples)
    sound = rows_of(Discs(), samples)
    troubled = samples[1].id
    assert [row for row in found if row[0] != troubled] == [row for row in sound if row[0] != troubled]
    failures = [row for row in found if row[-1] is not None]
    assert [(row[0], row[1]) for row in failures] == [(troubled, failed_at)]
    assert re.search(words, failures[0][-1]) and "\n" not in failures[0][-1]


def test_one_that_is_killed_from_outside_is_started_again(bridge: Maker) -> None:
    method = bridge()
    session = method.open(IMAGE)
    before = method.child._process.pid
    os.kill(before, signal.SIGKILL)
    with pytest.raises(BridgeError, match=r"was killed by SIGKILL|is gone"):
        session.predict(CLICK)
    assert method.open(IMAGE).predict(CLICK).masks.any()
    assert method.child._process.pid != before
    with pytest.raises(BridgeError, match="what it knew of this sample is gone"):
        session.predict(CLICK)


def test_starting_again_has_an_end(bridge: Maker) -> None:
    method = bridge()
    method._command = [sys.executable, "-c", "import sys; sys.exit(4)"]
    method.close()
    refuses(r"3 attempts: .*exit code 4", method.open, IMAGE)
    refuses("3 attempts", lambda: evaluate(method, make_samples(2)))


def test_a_question_that_is_broken_off_leaves_no_answer_to_the_next(bridge: Maker) -> None:
    method = bridge(fault="hangs-always")
    session = method.open(IMAGE)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            session.predict([*CLICK, *CLICK])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not method.child.alive
    assert method.open(IMAGE).predict(CLICK).masks.any()


def test_what_a_child_leaves_behind_hides_not_that_it_ended(bridge: Maker) -> None:
    """A process that it forked holds its pipes open."""
    method = bridge(fault="leaves-always")
    with pytest.raises(BridgeError, match="was asked to predict and ended with exit code 6"):
        method.open(IMAGE).predict(CLICK)
    assert _group_ends(method.child._process.pid)


def test_a_module_that_the_child_lacks_is_named(bridge: Maker) -> None:
    refuses("no_such_module_of_a_peer", bridge, fault="missing")


SILENT = "did not answer within 0.5 s"
NONSENSE = [
    ("sh -c 'echo Loading the model'", r"wrote b'Loading the model\\n' where a message was due"),
    ("printf hi", r"wrote b'hi', and (ended with exit code 0|closed)"),
    ("sh -c 'echo hi; sleep 60'", rf"wrote b'hi\\n', and {SILENT}"),
    ("sh -c 'sleep 60'", SILENT),
    ("no-such-program-at-all", "no-such-program-at-all: cannot be started"),
    ("sh -c 'echo broken >&2; exit 7'", "ended with exit code 7; its last words: broken"),
]


@pytest.mark.parametrize(("program", "words"), NONSENSE)
def test_a_program_that_does_not_speak_the_protocol(program: str, words: str) -> None:
    refuses(words, Bridge, command=program, start_timeout=0.5 if "sleep" in program else 30)


def test_a_program_of_the_users_own(bridge: Maker, tmp_path: Path) -> None:
    """Written from docs/bridge.md alone: it knows nothing of the child's file."""
    program = tmp_path / "own.py"
    program.write_text(OWN)
    session = bridge(command=f"{sys.executable} {program}").open(IMAGE)
    found = session.predict([Click(3, 4, True), Click(5, 6, False)])
    session.keep(0)
    assert found.masks.dtype == np.bool_ and found.masks.shape == (1, 20, 30) and found.scores is None
    assert [tuple(place) for place in np.argwhere(found.masks[0])] == [(4, 3)]


def test_a_card_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    card = f'title = "Own"\nstatus = "bridge"\noptions.command.default = "{sys.executable} {tmp_path}/own.py"\n'
    (tmp_path / "own.toml").write_text(card)
    method = method_spec(str(tmp_path / "own.toml")).build()
    assert method.open(IMAGE).predict(CLICK).masks[0, 4, 3]
    (tmp_path / "odd.toml").write_text('title = "Odd"\nstatus = "bridge"\n')
    refuses(r"names its adapter .* or has an \[options.command\]", lambda: method_spec(str(tmp_path / "odd.toml")))


DOCUMENT = Path(__file__).parents[3] / "docs" / "bridge.md"
OWN = DOCUMENT.read_text().partition("```python\nimport json\n")[2].partition("```")[0]
OWN = f"import json\n{OWN}"


LONG_ERROR = r'"type": "error", "error": "two\nlines\ud800\x1b[1m" + "x" * 9999'
WRONG_ANSWERS = [
    ('"type": "opened"', '"type": "kept"', "asked to open and answered 'kept' where 'opened' was due"),
    ('"scores": None', '"scores": [10 ** 400]', "not numbers: .* of 1329 bits"),
    ('"scores": None', '"scores": [float("nan")]', "not finite numbers"),
    ('"|b1", "shape"', '"|u1", "shape"', "dtype uint8"),
    ("[1, height, width]", "[1, width, height]", r"shape \(1, 30, 20\)"),
    ("[1, height, width]", "[1 << 20, height, width]", "arrays of 629145600 bytes; at most 153600"),
    ('"arrays": listed}', '"arrays": []}', "0 arrays"),
    ('"type": "prediction"', LONG_ERROR, r"raised two lines \[1mx+$"),
]


@pytest.mark.parametrize(("found", "instead", "words"), WRONG_ANSWERS)
def test_a_wrong_answer_is_named(bridge: Maker, tmp_path: Path, found: str, instead: str, words: str) -> None:
    program = tmp_path / "own.py"
    assert found in OWN
    program.write_text(OWN.replace(found, instead))
    method = bridge(command=f"{sys.executable} {program}")
    with pytest.raises(MethodError, match=words) as caught:
        session = method.open(IMAGE)
        checked_candidates(session.predict(CLICK), 20, 30, 0.5)
        session.keep(0)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


MISSING: list[tuple[dict[str, str], str]] = [
    ({"adapter": "ritmm", "checkpoint": __file__}, "unknown adapter 'ritmm'"),
    ({"adapter": "nowhere.py"}, "nowhere.py"),
    ({"repo": "no/where"}, "repo = no/where"),
    ({"python": ""}, "python=PATH"),
    ({"python": "/no/python"}, "python = /no/python"),
    ({"checkpoint": "none.pth"}, "checkpoint = none.pth"),
    ({"command": "a 'b"}, "command = a 'b"),
]


@pytest.mark.parametrize(("options", "words"), MISSING)
def test_what_is_missing_is_named_before_anything_starts(options: dict[str, str], words: str) -> None:
    sound = {"adapter": ADAPTER, "repo": ".", "python": sys.executable, "checkpoint": "", "command": ""}
    child_command(**sound)
    refuses(words, child_command, **{**sound, **options})


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from disbench.baselines.bridge.method import Bridge
import numpy as np
method = Bridge(adapter={adapter!r}, repo=".", python={python!r}, fault="hangs-always", timeout=600.0)
session = method.open(np.zeros((4, 4, 3), dtype=np.uint8))
from disbench.core.clicks import Click
assert session.predict([Click(0, 0, True)]).masks.any()
print(method.child._process.pid, flush=True)
session.predict([Click(0, 0, True), Click(1, 1, True)])
"""


@pytest.mark.parametrize("script", [False, True], ids=["python", "script"])
def test_no_orphan_is_left_when_the_parent_is_killed(tmp_path: Path, script: bool) -> None:
    """Not even one that is busy, or behind a script that sets up its environment."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\n')
    python.chmod(0o755)
    code = PARENT.format(path=sys.path, adapter=ADAPTER, python=str(python) if script else sys.executable)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    time.sleep(0.5)
    assert _group_lives(group)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    if not _group_ends(group):
        os.killpg(group, signal.SIGKILL)
        pytest.fail("the child lives on")


def _group_ends(group: int) -> bool:
    """Whether it does within 20 s."""
    for _ in range(200):
        if not _group_lives(group):
            return True
        time.sleep(0.1)
    return False


def _group_lives(group: int) -> bool:
    """Whether any process of a group runs; one that nobody has buried counts as gone."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in ("Z", "X"):
            return True
    return False
