"""A method in a child process: it answers as in this one, and any fault of the child ends in one sentence."""

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

from disbench.baselines.bridge.method import Bridge, checked_adapter, child_command, provenance
from disbench.baselines.bridge.process import BridgeError
from disbench.baselines.cards import method_spec
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.harness import evaluate
from disbench.harness.predict import predict
from disbench.harness.protocol import Protocol
from disbench.harness.sample_loop import TargetsTask
from disbench.harness.tasks import Began, run_chunk
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
        ("crashes", "was asked to predict and ended with exit code 5; its last words: .*the peer fell over", 7),
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
    words = "could not be started again in 3 attempts: the program was asked to start and ended with exit code 4"
    with pytest.raises(InputError, match=words):
        method.open(IMAGE)
    with pytest.raises(InputError, match=words):
        evaluate(method, make_samples(2))  # no sample is to blame


def test_it_is_made_ready_outside_of_the_time_limit_of_a_call(tmp_path: Path) -> None:
    method = bridge(tmp_path)
    os.kill(method.child._process.pid, signal.SIGKILL)
    method.child._process.wait()
    (sample,) = make_samples(1)
    first = next(run_chunk(method, [(0, lambda: sample)], TargetsTask(Protocol(max_clicks=1))))
    assert isinstance(first, Began) and first.what == "open"
    assert method.child.alive
    method.close()


def test_a_question_that_is_broken_off_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    method = bridge(tmp_path, fault="hangs-always")
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
    method.close()


def test_what_a_child_leaves_behind_hides_not_that_it_ended(tmp_path: Path) -> None:
    """A process that it forked holds its pipes open."""
    method = bridge(tmp_path, fault="leaves-always")
    with pytest.raises(BridgeError, match="was asked to predict and ended with exit code 6"):
        method.open(IMAGE).predict(CLICK)
    assert _group_ends(method.child._process.pid)


def test_one_image_tells_of_a_fault_in_one_sentence(tmp_path: Path) -> None:
    method = bridge(tmp_path, fault="raises-always")
    with pytest.raises(InputError, match=r"Bridge: the program was asked to predict and raised RuntimeError"):
        predict(method, IMAGE, [Click(3, 4, True), Click(9, 9, False)])
    method.close()


def test_a_missing_module_is_told_at_the_start(tmp_path: Path) -> None:
    words = "ModuleNotFoundError: No module named 'no_such_module_of_a_peer'"
    with pytest.raises(InputError, match=words):
        bridge(tmp_path, fault="missing")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "sh -c 'echo Loading the model'",
            r"wrote b'Loading the model\\n' where a message was due; its standard output is for the protocol",
        ),
        ("printf hi", r"was asked to start and wrote b'hi', and (ended with exit code 0|closed)"),
        ("sh -c 'echo hi; sleep 60'", r"wrote b'hi\\n', and did not answer within 0.5 s"),
        ("printf DSB1", "was asked to start and (ended with exit code|closed its standard output)"),
        ("sh -c 'sleep 60'", "was asked to start and did not answer within 0.5 s"),
        ("no-such-program-at-all", "no-such-program-at-all: it cannot be started"),
        (" ", "it cannot be started; begin it with a program"),
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


def test_a_card_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    card = f'title = "Own"\nstatus = "bridge"\noptions.command.default = "{sys.executable} {tmp_path}/own.py"\n'
    (tmp_path / "own.toml").write_text(card)
    method = method_spec(str(tmp_path / "own.toml")).build()
    assert method.open(IMAGE).predict(CLICK).masks[0, 4, 3]
    (tmp_path / "odd.toml").write_text('title = "Odd"\nstatus = "bridge"\n')
    with pytest.raises(InputError, match=r"names its adapter .* or has an \[options.command\]"):
        method_spec(str(tmp_path / "odd.toml"))


DOCUMENT = Path(__file__).parents[3] / "docs" / "bridge.md"
OWN = DOCUMENT.read_text().partition("```python\nimport json\n")[2].partition("```")[0]
OWN = f"import json\n{OWN}"


@pytest.mark.parametrize(
    ("there", "instead", "words"),
    [
        ('"type": "kept"', '"type": "done"', "was asked to keep and answered 'done' where 'kept' was due"),
        ('"type": "opened"', '"type": "kept"', "was asked to open and answered 'kept' where 'opened' was due"),
        ('"scores": None', '"scores": [10 ** 400]', r"scores that are not finite numbers \(\[1000"),
        ('"scores": None', '"scores": [float("nan")]', r"scores that are not finite numbers \(\[nan\]\)"),
        ('"scores": None', '"scores": [True]', "scores that are not finite numbers"),
        ('"scores": None', '"scores": 1', "answered scores 1 for 1 masks"),
        ('"|b1", "shape"', '"|u1", "shape"', r"answered masks of shape \(1, 20, 30\) and type uint8"),
        ("[1, height, width]", "[0, height, width]", r"answered masks of shape \(0, 20, 30\)"),
        ("[1, height, width]", "[1, width, height]", r"answered masks of shape \(1, 30, 20\)"),
        ("[1, height, width]", "[1 << 20, height, width]", "wrote arrays of 629145600 bytes; at most 153600"),
        ('"arrays": listed}', '"arrays": []}', "answered 0 arrays, not one of masks"),
        (
            '"type": "prediction"',
            r'"type": "error", "error": "two\nlines\ud800\x1b[1m" + "x" * 9999',
            r"raised two lines \[1mx+$",
        ),
    ],
)
def test_a_program_whose_answers_are_not_as_they_should_be(
    tmp_path: Path, there: str, instead: str, words: str
) -> None:
    program = tmp_path / "own.py"
    assert there in OWN
    program.write_text(OWN.replace(there, instead))
    method = Bridge(command=f"{sys.executable} {program}")
    with pytest.raises(BridgeError, match=words) as caught:
        session = method.open(IMAGE)
        session.predict(CLICK)
        session.keep(0)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()
    method.close()


def test_a_python_behind_a_script(tmp_path: Path) -> None:
    """As those are that set up an environment first; the child's parent is another process then."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\n')
    program.chmod(0o755)
    method = Bridge(adapter=ADAPTER, repo=str(tmp_path), python=str(program))
    assert method.open(IMAGE).predict(CLICK).masks.any()
    method.close()


def test_where_a_python_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked for as a shell does; a path stays what it is, even if it is a link."""
    program = tmp_path / "python"
    program.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)

    def found(python: str) -> str:
        return child_command(ADAPTER, repo=".", python=python, checkpoint="", command="")[0]

    assert found("./python") == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found("python") == str(program)
    with pytest.raises(InputError, match="no program is there"):
        found(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adapter": "ritmm", "repo": ".", "python": sys.executable}, r"ritmm: .* add --set checkpoint=PATH"),
        (
            {"adapter": "ritmm", "repo": ".", "python": sys.executable, "checkpoint": __file__},
            "unknown adapter 'ritmm'",
        ),
        ({"adapter": ADAPTER, "repo": __file__, "python": sys.executable}, "there is no such folder; name a checkout"),
        ({"adapter": "nowhere.py", "repo": ".", "python": sys.executable}, "nowhere.py: there is no such file"),
        ({"adapter": ADAPTER, "repo": "", "python": sys.executable}, "add --set repo=PATH"),
        ({"adapter": ADAPTER, "repo": ".", "python": ""}, "add --set python=PATH"),
        (
            {"adapter": ADAPTER, "repo": "no/where", "python": sys.executable},
            "repo = no/where: there is no such folder",
        ),
        ({"adapter": ADAPTER, "repo": ".", "python": "/no/python"}, "python = /no/python: no program is there"),
        ({"command": "a 'b"}, "quote it as for a shell"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        child_command(**({"adapter": "", "repo": "", "python": "", "checkpoint": "", "command": ""} | options))


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"checkpoint = .*none\.pth: there is no such file"):
        bridge(tmp_path, checkpoint=str(tmp_path / "none.pth"))
    assert checked_adapter(ADAPTER) == ADAPTER


def test_provenance(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"abc")
    found = provenance({"checkpoint": str(checkpoint), "repo": str(tmp_path)})
    assert found["checkpoint_sha256"].startswith("ba7816bf8f01cfea")
    assert found["repo_commit"] == "", "no checkout of git"
    assert provenance({}) == {}
    assert set(provenance({"adapter": ADAPTER})) == {"adapter_sha256"}
    assert provenance({"adapter": "ritm"}) == {}


def test_a_folder_in_a_checkout_of_something_else_has_no_commit(tmp_path: Path) -> None:
    """Code that was unpacked there, and that the checkout does not know."""
    (tmp_path / "own.txt").write_text("")
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "model.py").write_text("")
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "own.txt"), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert provenance({"repo": str(tmp_path / "peer")})["repo_commit"] == ""
    assert len(provenance({"repo": str(tmp_path)})["repo_commit"]) == 40


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from disbench.baselines.bridge.method import Bridge
import numpy as np
method = Bridge(adapter={adapter!r}, repo=".", python={python!r}, fault="hangs-always", timeout=600.0)
print(method.child._process.pid, flush=True)
session = method.open(np.zeros((4, 4, 3), dtype=np.uint8))
from disbench.core.clicks import Click
session.predict([Click(0, 0, True), Click(1, 1, True)])
"""


@pytest.mark.parametrize("script", [False, True], ids=["python", "script"])
def test_no_orphan_is_left_when_the_parent_is_killed(tmp_path: Path, script: bool) -> None:
    """Not even one that is busy, or behind a script."""
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
