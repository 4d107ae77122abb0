"""The curves' pictures: whole, within their bounds, and the same bytes again. What they look like is for eyes."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from disbench.reports.curves import Curve, Panel, draw_curves
from tests.unit.run_tools import draw_ious

LONG = ("W" * 150, "a name of many words " * 12, "joined-by-hyphens-" * 20, "$x_1$ {a} _b 漢字 --> <b>")


def panel(count: int, names: tuple[str, ...] = ("method",), clicks: int = 20) -> Panel:
    curves = tuple(
        Curve(names[i % len(names)], f"[a] NoC@90 {i}.00", draw_ious(5, clicks, i).mean(axis=0).astype(float), i)
        for i in range(count)
    )
    return Panel("grabcut (b04d9de7)", curves, ("[a] another protocol: selection score", names[-1] * 3))


def pixels(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert "Software" not in image.info
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "panels",
    [
        [panel(3)],
        [panel(7)] * 3,
        [panel(9, LONG)],
        [panel(2, clicks=1), panel(2, clicks=100), panel(1, LONG), panel(25)],
    ],
    ids=["one", "three", "long", "mixed"],
)
def test_a_picture_is_whole(panels: list[Panel]) -> None:
    png, svg = draw_curves(panels).values()
    found = pixels(png)
    height, width, _ = found.shape
    assert width == round(min(3, len(panels)) * 4.4 * 150)
    edge = np.concatenate([found[:3].ravel(), found[-3:].ravel(), found[:, :3].ravel(), found[:, -3:].ravel()])
    assert edge.min() == 255, "something reaches over the edge"
    for number in range(min(3, len(panels))):  # every panel of the first row has its ink
        part = found[: height // 2, number * width // 3 : (number + 1) * width // 3]
        assert (part < 128).any(axis=2).sum() > 500
    colours = {tuple(colour) for colour in found.reshape(-1, 3)}
    assert (0, 114, 178) in colours
    assert ET.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize("letter", ["t", "i", "l1", "m ", "from that ", "[a] of 0 "])
def test_no_text_reaches_over_the_edge(letter: str) -> None:
    found = pixels(draw_curves([replace(panel(1, (letter * 200,)), title=letter * 100)])["png"])
    assert found[:, -12:].min() == 255
    assert found[:, :3].min() == 255


def test_bytes_are_the_same_and_undated() -> None:
    panels = [panel(3), Panel("GrabCut", ())]
    drawn = draw_curves(panels, ("png", "svg", "pdf"))
    assert draw_curves(panels, ("png", "svg", "pdf")) == drawn
    for word in (b"dc:date", b"Matplotlib v", b"Software", b"/CreationDate", b"/Producer", b"/Creator"):
        assert word not in b"".join(drawn.values())
    assert drawn["pdf"].rstrip().endswith(b"%%EOF")
