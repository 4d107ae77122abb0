"""The demo as a person uses it: the command, its page in a browser with real clicks, and what is saved opened again."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from disbench.core.clicks import Click
from disbench.datasets.photos import photo_path
from disbench.harness.predict import predict
from disbench.io.recorded_clicks import read_recording
from tests.browser import CHROMIUM, CONTRASTS, NO_BROWSER
from tests.commands import disbench, heed_interrupts, printed, refused, typed
from tests.toy_methods import Discs

pytest.importorskip("aiohttp")
sync_api = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)]
ROOT = Path(__file__).parents[2]
METHOD = f"{ROOT / 'tests' / 'toy_methods.py'}:Discs"
SLOW = '''
import time
from tests.toy_methods import Discs


class Slow(Discs):
    """Takes its time, and fails on a click at the left edge."""

    def open(self, image):
        session = super().open(image)
        own = session.predict

        def predict(clicks):
            time.sleep(0.7)
            if clicks[-1].x == 0:
                raise ValueError("no luck at the edge")
            return own(clicks)

        session.predict = predict
        return session
'''
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    (made / "slow.py").write_text(SLOW)
    Image.new("RGB", (1800, 1200)).save(made / "large.png")
    return made


def started(*arguments: str | Path) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        typed("demo", "--no-browser", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout
    line = process.stdout.readline()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ shows .*; end it with Ctrl\+C\n", line), process.communicate()
    return process, line.split()[0]


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return output


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    process, found = started("--method", METHOD, "--set", "candidates=3", "--out", folder / "out")
    yield found
    assert ended(process) == "the demo has ended\n"


@pytest.fixture
def open_page(open_page: Opener) -> Opener:
    """Opens the page and waits for its photo."""

    def settled(*arguments: Any, **options: Any) -> Any:
        page = open_page(*arguments, **options)
        settle(page)
        return page

    return settled


def settle(page: Any) -> None:
    """Until the page has all answers. Its policy lets no text become code, so that nothing is polled in it."""
    page.wait_for_selector("#stage:not([aria-busy])")
    page.evaluate("document.getElementById('photo').decode().catch(() => 0)")


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where on the screen the middle of a pixel of the photo is."""
    box = page.locator("#photo").bounding_box()
    scale = box["width"] / page.evaluate("document.getElementById('photo').naturalWidth")
    return box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale


def click(page: Any, x: int, y: int, button: str = "left") -> None:
    page.mouse.click(*place(page, x, y), button=button)
    settle(page)


def clicks_of(page: Any) -> list[str]:
    return re.findall(r"--click (\S+)", page.inner_text("#command"))


def test_the_whole_path(open_page: Opener, folder: Path) -> None:
    page = open_page(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("Photo chelsea.png", exact=True).click()
    settle(page)
    assert page.locator("#status").inner_text() == "Click on something in the photo."
    assert page.locator("[data-save]").first.is_disabled()
    click(page, 100, 80)
    candidates = page.locator(".candidate")
    assert [text.split("\n")[:2] for text in candidates.all_inner_texts()] == [
        ["1", "score 1.000"],
        ["2", "score 0.500"],
        ["3", "score 0.333"],
    ]
    assert candidates.nth(0).get_attribute("aria-pressed") == "true"
    first = page.locator("#mask").get_attribute("src")
    candidates.nth(2).hover()
    preview = page.locator("#mask").get_attribute("src")
    assert preview != first
    candidates.nth(2).click()
    settle(page)
    assert candidates.nth(2).get_attribute("aria-pressed") == "true"
    page.mouse.move(2, 2)
    assert page.locator("#mask").get_attribute("src") == preview
    page.keyboard.press("2")
    settle(page)
    assert candidates.nth(1).get_attribute("aria-pressed") == "true"
    click(page, 110, 90, "right")
    assert not page.locator("#choice").is_visible()
    click(page, 300, 200)
    assert clicks_of(page) == ["100,80,+", "110,90,-", "300,200,+"]
    assert page.locator(".mark.plus").count() == 2
    page.locator("#undo").click()
    settle(page)
    page.keyboard.press("Control+z")
    settle(page)
    assert candidates.nth(1).get_attribute("aria-pressed") == "true"  # the choice came along
    click(page, 110, 90, "right")
    page.get_by_label("Sample").fill("chelsea/77")
    page.get_by_label("You").fill("ann")
    expected = downloaded(page, folder)
    page.locator("#save-all").click()
    sync_api.expect(page.locator("#status")).to_contain_text("Saved into")
    page.locator("#copy").click()
    command = page.evaluate("navigator.clipboard.readText()")
    assert "--keep 1" in command
    opened_again(folder, expected)


def downloaded(page: Any, folder: Path) -> np.ndarray:
    """Save all three files by the browser; returns the mask that they must hold."""
    taken = {}
    for button in page.locator("[data-save]").all():
        with page.expect_download() as download:
            button.click()
        taken[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    settle(page)
    made = [Click(100, 80, True), Click(110, 90, False)]
    image = np.asarray(Image.open(photo_path("chelsea.png")).convert("RGB"))
    expected = predict(Discs(candidates=3), image, made, keep=1).mask
    png = np.asarray(Image.open(io.BytesIO(taken["chelsea-mask.png"])))
    assert np.array_equal(png, expected * np.uint8(255))
    assert np.array_equal(coco_mask.decode(json.loads(taken["chelsea-mask.json"])), expected)
    (folder / "taken.parquet").write_bytes(taken["chelsea-clicks.parquet"])
    assert read_recording(folder / "taken.parquet").clicks == {"chelsea/77": tuple(made)}
    return expected


def opened_again(folder: Path, expected: np.ndarray) -> None:
    """What the page saved, by the other commands."""
    recorded = folder / "out" / "recorded-clicks.parquet"
    options = ("--method", METHOD, "--set", "candidates=3")
    photo = photo_path("chelsea.png")
    printed("predict", photo, *options, "--recorded", recorded, "--keep", "1", "--out", folder / "a.png")
    for path in (folder / "a.png", folder / "out" / "chelsea-1.png"):
        assert np.array_equal(np.asarray(Image.open(path)) > 0, expected)
    run = folder / "run"
    policy = ("--policy", f"replay:{recorded}", "--store", "kept")
    result = printed("run", *options, "--dataset", "photos", *policy, "--workers", "1", "--out", run)
    assert "1 samples, 2 clicks" in result
    assert "2 clicks are the recorded ones" in printed("verify", run, "--recording", recorded)


def test_clicks_are_whole_pixels_on_a_screen_with_a_ratio(open_page: Opener) -> None:
    page = open_page(device_scale_factor=1.5, viewport={"width": 1100, "height": 700})
    page.get_by_label("Photo motorcycle_left.png").click()
    settle(page)
    wanted = [(0, 0), (740, 499), (740, 0), (0, 499), (371, 250), (123, 77)]
    for x, y in wanted:
        click(page, x, y)
    assert clicks_of(page) == [f"{x},{y},+" for x, y in wanted]
    for _ in range(4):
        page.locator("#in").click()
    box = page.locator("#stage").bounding_box()
    for x, y in ((360, 240), (380, 260)):  # of those in view
        right, down = place(page, x, y)
        assert box["x"] < right < box["x"] + box["width"]
        assert box["y"] < down < box["y"] + box["height"]
        click(page, x, y)
    assert clicks_of(page)[-2:] == ["360,240,+", "380,260,+"]
    page.evaluate("document.body.style.zoom = '1.25'")
    page.locator("#out").click()
    for x, y in ((364, 250), (376, 255)):
        click(page, x, y)
    assert clicks_of(page)[-2:] == ["364,250,+", "376,255,+"]


def test_the_keyboard_alone(open_page: Opener) -> None:
    page = open_page()

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                break
        assert page.evaluate("selector => document.activeElement.matches(selector)", selector)
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none"

    tab_to("[aria-label='Photo coffee.png']")
    page.keyboard.press("Enter")
    settle(page)
    tab_to("#stage")
    assert page.locator("#cross").is_visible()
    assert page.locator("#status").inner_text() == "Cross at 300, 200."
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("n")
    assert "on the object" in page.locator("#error").inner_text()
    page.keyboard.press("Enter")
    settle(page)
    assert clicks_of(page) == ["327,199,+"]
    page.keyboard.press("3")
    settle(page)
    assert "--keep 2" in page.inner_text("#command")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("n")
    settle(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    settle(page)
    assert clicks_of(page) == ["327,199,+", "327,208,-", "318,208,+"]
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    settle(page)
    tab_to(".candidate")
    page.keyboard.press("Enter")
    settle(page)
    assert page.evaluate("document.activeElement.className") == "candidate"  # the focus stays where it was
    assert "--keep 0" in page.inner_text("#command")
    page.get_by_label("Sample").fill("1z")
    page.get_by_label("Sample").press("2")
    assert page.get_by_label("Sample").input_value() == "1z2"
    assert "--keep 0" in page.inner_text("#command")


def test_a_slow_method_and_one_that_fails(open_page: Opener, folder: Path) -> None:
    process, url = started("--method", f"{folder / 'slow.py'}:Slow")
    try:
        page = open_page(url, quiet=False)
        page.mouse.click(*place(page, 200, 200))
        page.mouse.click(*place(page, 300, 200), button="right")
        page.keyboard.press("Control+z")
        assert page.locator(".mark.waiting").count() == 2
        assert "Slow is working" in page.locator("#status").inner_text()
        page.locator("#opacity").fill("30")  # the page goes on
        assert page.locator("#mask").evaluate("mask => mask.style.opacity") == "0.3"
        settle(page)
        assert clicks_of(page) == ["200,200,+"]
        click(page, 0, 100)
        words = page.locator("#error").inner_text()
        assert words.startswith("Slow failed: predict raised ValueError: no luck at the edge (slow.py:")
        assert clicks_of(page) == ["200,200,+"]
        assert page.locator(".mark").count() == 1
        click(page, 30, 100)
        assert clicks_of(page) == ["200,200,+", "30,100,+"]
        page.get_by_label("Photo camera.png").click()
        settle(page)
        assert page.locator(".mark").count() == 0
        page.get_by_label("Photo astronaut.png").click()
        settle(page)
        assert clicks_of(page) == ["200,200,+", "30,100,+"]  # the work is still there
    finally:
        ended(process)
    page.mouse.click(*place(page, 250, 250))
    sync_api.expect(page.locator("#error")).to_contain_text("still running")


def test_a_phone(open_page: Opener) -> None:
    page = open_page(
        viewport={"width": 375, "height": 720},
        has_touch=True,
        is_mobile=True,
        device_scale_factor=3,
        color_scheme="dark",
    )
    photo = page.locator("#photo")
    photo.tap(position={"x": 120, "y": 90})
    settle(page)
    page.locator(".candidate").nth(1).tap()
    settle(page)
    page.get_by_label("background").check()
    photo.tap(position={"x": 140, "y": 90})
    settle(page)
    assert [made[-1] for made in clicks_of(page)] == ["+", "-"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("summary").tap()
    found = page.evaluate(CONTRASTS)
    assert found["bad"] == []
    assert found["seen"] > 20


def test_the_commands_own_errors(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            ((folder / "none.png",), "none.png: "),
            ((folder / "slow.py",), "slow.py: "),
            (("--method", METHOD.replace("Discs", "BoxOfPoints")), "nothing to refine"),
            (("--method", METHOD.replace("Discs", "NotMade")), "NotMade"),
            (("--method", "geodesi"), "did you mean 'geodesic'"),
            (("--method", METHOD, "--port", port), "--port"),
        ):
            refused(disbench("demo", "--no-browser", *arguments), words)
