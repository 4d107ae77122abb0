"""Panels, sheets and curves: what is painted where, and the same bytes again. What they look like is for eyes."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from disbench.core import sheets
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.painting import BLACK, BLUE, WHITE, YELLOW
from disbench.core.sheets import Panel, Sheet, Strip, draw_sheet, make_sheet, paint_panel, place_badges, window_around
from disbench.reports.curves import Curve, draw_curves
from disbench.reports.curves import Panel as CurvePanel
from tests.unit.run_tools import draw_ious

NASTY = "=2*|x|<b>&amp; $d$ _#~^{e}\\ 漢字 " + "long-name-" * 12
# Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision deficiency, 2009.
BLINDNESS = {
    "none": np.eye(3),
    "protan": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deutan": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritan": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def scene(height: int = 60, width: int = 90) -> Panel:
    image = np.full((height, width, 3), (200, 60, 30), dtype=np.uint8)
    target = np.zeros((height, width), dtype=np.int8)
    target[20:40, 30:60] = 1
    target[50:] = -1
    mask = np.zeros((height, width), dtype=bool)
    mask[5:30, 10:45] = True
    return Panel("click 1", image, "IoU 0.2", target, mask, (Click(20, 10, True), Click(70, 45, False)))


def count_of(pixels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((pixels == np.array(colour)).all(axis=2).sum())


def test_what_is_painted() -> None:
    panel = scene()
    picture = paint_panel(panel, (270, 180))
    assert picture.shape == (180, 270, 3)
    for colour in (BLUE, WHITE, YELLOW, BLACK):
        assert count_of(picture, colour) > 50
    rows = picture[156:174].reshape(-1, 3)
    assert {(235, 235, 235), (90, 90, 90)} <= set(map(tuple, rows.tolist()))
    alone = paint_panel(replace(panel, mask=None, target=None), (270, 180))
    assert np.abs(alone.astype(int) - np.array((200, 60, 30))).max() <= 1
    assert not count_of(paint_panel(replace(panel, mask=None), (270, 180)), BLUE)


def test_the_shown_part_is_enlarged() -> None:
    panel = scene()
    whole = count_of(paint_panel(replace(panel, target=None), (270, 180)), BLUE)
    part = paint_panel(replace(panel, target=None, window=(0, 0, 45, 30)), (270, 180))
    assert count_of(part, BLUE) > 1.3 * whole


def test_a_sheet_that_is_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_HEIGHT", 500)
    tall = tuple(Strip("", ((scene(),),)) for _ in range(5))
    with pytest.raises(InputError, match="too tall"):
        draw_sheet(make_sheet("", (), tall))


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_stay_apart_for_the_colour_blind(blindness: str) -> None:
    """Distances in linear RGB of what lies beside each other: mask and its rim, dashes, mask and dashes."""
    linear = {c: (np.array(c) / 255) ** 2.2 for c in (BLUE, WHITE, YELLOW, BLACK)}
    seen = {c: np.clip(BLINDNESS[blindness] @ value, 0, 1) for c, value in linear.items()}
    for one, other in ((BLUE, WHITE), (YELLOW, BLACK), (BLUE, YELLOW), (WHITE, BLACK)):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.4


@given(
    st.lists(st.tuples(st.floats(60, 240), st.floats(60, 140)), min_size=1, max_size=20), st.sampled_from([6.0, 8.0])
)
@settings(max_examples=60)
def test_numbers_of_clicks_do_not_cover_each_other(points: list[tuple[float, float]], radius: float) -> None:
    badges = place_badges(points, radius, (300, 200))
    assert len(badges) == len(points)
    assert badges == place_badges(points, radius, (300, 200))
    for number, badge in enumerate(badges):
        others = badges[number + 1 :]
        assert all(math.dist(badge, other) >= 2 * radius for other in others)
        if badge != points[number]:
            assert radius <= badge[0] <= 300 - radius
            assert radius <= badge[1] <= 200 - radius


@given(st.data())
def test_the_shown_part_holds_target_and_clicks(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(30, 400)), data.draw(st.integers(30, 400))
    target = np.zeros((height, width), dtype=np.int8)
    pixels = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    places = data.draw(st.lists(pixels, min_size=1, max_size=5))
    target[tuple(np.array(places[:2]).T)] = 1
    clicks = [Click(x, y, True) for y, x in places[2:]]
    window = window_around(target, clicks)
    if window is None:
        return
    left, top, right, bottom = window
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert all(left <= x < right and top <= y < bottom for y, x in places)
    assert abs((right - left) / width - (bottom - top) / height) <= 1 / min(width, height)


def sheet() -> Sheet:
    panel = scene()
    rows = (
        (panel, replace(panel, marks="dots", framed=True), replace(panel, marks="first", mask=None)),
        (
            None,
            replace(panel, mask=None, absent="mask not stored", title=NASTY),
            replace(panel, window=(10, 5, 55, 35)),
        ),
    )
    return make_sheet(NASTY, (NASTY, "second"), (Strip(NASTY, rows), Strip("", ((panel,),))), cell_width=1.5)


def test_the_same_bytes_in_every_form() -> None:
    first, again = (draw_sheet(sheet(), ("png", "svg", "pdf")) for _ in range(2))
    assert first == again
    with Image.open(io.BytesIO(first["png"])) as image:
        assert image.size[0] == 3 * 165 + 2 * 18 + 2 * 9
        assert "Software" not in image.info
    assert ET.fromstring(first["svg"]).tag.endswith("svg")
    assert first["pdf"].startswith(b"%PDF")
    assert not re.search(rb"CreationDate|Producer", first["pdf"])


LONG = ("W" * 150, "a name of many words " * 12, "joined-by-hyphens-" * 20, "$x_1$ {a} _b 漢字 --> <b>")


def panel(count: int, names: tuple[str, ...] = ("method",), clicks: int = 20) -> CurvePanel:
    curves = tuple(
        Curve(names[i % len(names)], f"[a] NoC@90 {i}.00", draw_ious(5, clicks, i).mean(axis=0).astype(float), i)
        for i in range(count)
    )
    return CurvePanel("grabcut (b04d9de7)", curves, ("[a] another protocol: selection score", names[-1] * 3))


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
def test_a_picture_is_whole(panels: list[CurvePanel]) -> None:
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
    panels = [panel(3), CurvePanel("GrabCut", ())]
    drawn = draw_curves(panels, ("png", "svg", "pdf"))
    assert draw_curves(panels, ("png", "svg", "pdf")) == drawn
    for word in (b"dc:date", b"Matplotlib v", b"Software", b"/CreationDate", b"/Producer", b"/Creator"):
        assert word not in b"".join(drawn.values())
    assert drawn["pdf"].rstrip().endswith(b"%%EOF")
