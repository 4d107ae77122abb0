"""The speed of a method whose time is a clock in the test's hands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disbench.core.clicks import Click
from disbench.core.prediction import Prediction
from disbench.harness.predict import Speed, measure_speed, sat_points
from tests.commands import disbench, printed

TOY = Path(__file__).parents[2] / "toy_methods.py"
IMAGE = np.full((48, 64, 3), 9, dtype=np.uint8)


class Timed:
    """Opening takes 5 s and is remembered by the image; click k takes k s (100 more on the first image), keep 0.5."""

    def __init__(self) -> None:
        self.now, self.images, self.first_clicks = 0.0, set[bytes](), list[Click]()

    def open(self, image: np.ndarray) -> TimedSession:
        self.now += 0.0 if image.tobytes() in self.images else 5.0
        self.images.add(image.tobytes())
        return TimedSession(self, cold=len(self.images) == 1)


class TimedSession:
    def __init__(self, method: Timed, cold: bool) -> None:
        self.method, self.cold, self.asked = method, cold, 0

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        self.asked += 1
        assert len(clicks) == self.asked
        if len(clicks) == 1:
            self.method.first_clicks.append(clicks[0])
        self.method.now += len(clicks) + 100 * self.cold
        return Prediction(np.zeros((1, *IMAGE.shape[:2]), dtype=bool))

    def keep(self, index: int) -> None:
        self.method.now += 0.5


class Restarts(Timed):
    def open(self, image: np.ndarray) -> TimedSession:
        opened = super().open(image)
        opened.restart = lambda: setattr(opened, "asked", 0)  # type: ignore[attr-defined]
        return opened


@pytest.mark.parametrize("kind", [Timed, Restarts])
def test_times_without_the_warm_up(kind: type[Timed]) -> None:
    method = kind()
    found = measure_speed(method, IMAGE, repeats=2, clicks=3, clock=lambda: method.now)
    assert found == Speed((5.0, 5.0), (256.0, 256.0), ((1.5, 2.5, 3.5),) * 2, reopens=kind is Timed)
    assert len(method.images) == 3  # a warm-up and two repeats, none of which a cache could answer
    assert found.lines()[0] == "SAT latency: 261.00 s (261.00 to 261.00)"
    assert method.first_clicks[3:259] == sat_points(48, 64)


def test_opening_again_counts() -> None:
    class Forgets(Timed):
        def open(self, image: np.ndarray) -> TimedSession:
            self.images.discard(image.tobytes())
            return super().open(image)

    method = Forgets()
    found = measure_speed(method, IMAGE, repeats=1, clicks=1, clock=lambda: method.now)
    assert found.points == (256.0 + 255 * 5.0,)


def test_points_are_the_centres_of_cells() -> None:
    points = sat_points(33, 640)
    assert [(p.x, p.y) for p in points] == [
        (int((i + 0.5) * 640 / 16), int((j + 0.5) * 33 / 16)) for j in range(16) for i in range(16)
    ]
    assert all(click.positive for click in points)


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that was queued is done by the time that the clock is read."""
    method = Restarts()

    class Cuda:
        is_available = is_initialized = staticmethod(lambda: True)

        @staticmethod
        def synchronize() -> None:
            method.now += 10.0

    monkeypatch.setitem(sys.modules, "torch", type("torch", (), {"cuda": Cuda}))
    found = measure_speed(method, IMAGE, repeats=1, clicks=1, clock=lambda: method.now)
    assert (found.opened, found.points, found.clicks) == ((15.0,), (266.0,), ((11.5,),))


def test_the_command(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "plain.png")
    options = ("--image", "plain.png", "--repeats", "2", "--clicks", "3")
    done = printed("speed", "--method", f"{TOY}:Discs", *options, cwd=tmp_path)
    for words in ("SAT latency: ", "the image opened again for each", "click 1 to 3, ms: ", "SHA-256", "numpy"):
        assert words in done
    refusal = disbench("speed", "--method", f"{TOY}:BoxOfPoints", cwd=tmp_path)
    assert refusal.returncode == 2 and "all points" in refusal.stderr
