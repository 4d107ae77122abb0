"""Walk through the demo in a real browser: makes the screenshots of docs/demo.md and the files that the demo saves.

python benchmarks/demo.py --out demo-path --pictures docs
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from disbench.datasets.photos import open_photos, photo_path

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FIRST = (172, 336, "left")
REFINING = ((237, 219, "left"), (228, 86, "right"))
SAMPLE, CHOICE = "astronaut/2", "2"
COLOURS = 256
"""Colours of a screenshot: small files without a visible difference."""


def copy_photos(folder: Path) -> list[str]:
    """Copy the embedded photos to a folder, so that commands show a file name and not an installation path."""
    names = [image.file_name for image in open_photos().images.values()]
    for name in names:
        shutil.copy(photo_path(name), folder / name)
    return names


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[str]:
    """Run the demo in a folder, in a separate process; yields its URL."""
    command = [sys.executable, "-m", "disbench", "demo", "--no-browser", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stdout
        yield process.stdout.readline().split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class User:
    """Actions of a user on the page."""

    def __init__(self, page: Any, pictures: Path) -> None:
        self.page, self.pictures = page, pictures

    def wait(self) -> None:
        """Wait until the method has answered."""
        self.page.wait_for_selector("#stage:not([aria-busy])", timeout=300_000)
        self.page.mouse.move(2, 2)
        self.page.wait_for_timeout(200)

    def click(self, x: int, y: int, button: str) -> None:
        """Click a pixel of the photo."""
        box = self.page.locator("#photo").bounding_box()
        scale = box["width"] / self.page.evaluate("document.getElementById('photo').naturalWidth")
        self.page.mouse.click(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale, button=button)
        self.wait()

    def screenshot(self, name: str) -> None:
        """Save a screenshot."""
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        path = self.pictures / f"demo-{name}.png"
        image.quantize(COLOURS, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-path"), help="folder that the page saves to")
    parser.add_argument("--pictures", type=Path, default=Path("demo-path"), help="folder of the screenshots")
    parser.add_argument("--method", default="mobilesam")
    parser.add_argument("--set", nargs="*", default=["later=1"], help="options of the method")
    arguments = parser.parse_args()
    options = [word for value in arguments.set for word in ("--set", value)]
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        tempfile.TemporaryDirectory() as scratch,
        demo(
            Path(scratch),
            *copy_photos(Path(scratch)),
            *("--method", arguments.method, *options, "--out", arguments.out.name),
        ) as address,
        sync_playwright() as playwright,
    ):
        page = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS).new_page(
            viewport={"width": 1000, "height": 700}, color_scheme="light"
        )
        page.goto(address)
        user = User(page, arguments.pictures)
        user.wait()
        user.screenshot("begin")
        user.click(*FIRST)
        user.screenshot("candidates")
        page.keyboard.press(CHOICE)
        user.wait()
        page.keyboard.press("Escape")
        user.screenshot("choice")
        for click in REFINING:
            user.click(*click)
            print(page.inner_text("#status"))
        page.get_by_label("Sample").fill(SAMPLE)
        page.get_by_label("You").fill("ann")
        page.locator("#save-all").click()
        user.wait()
        user.screenshot("refined")
        print(page.inner_text("#status"))
        print(page.inner_text("#command"))
        shutil.copytree(Path(scratch) / arguments.out.name, arguments.out, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
