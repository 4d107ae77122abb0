"""Pictures of what a run made of a sample."""

from __future__ import annotations

from disbench.reports.figures.pictures import Panel, Window, window_around
from disbench.reports.run_samples import RunSample

SHOWN_CLICKS = (1, 5, 20)
"""Clicks after which masks are shown; of a sample with fewer, the last one as well."""


def window_of(*found: RunSample) -> Window | None:
    """The part of an image that holds the target and every run's clicks, if that is worth enlarging."""
    clicks = [click for of_run in found for click in of_run.clicks(len(of_run.rows))]
    return window_around(found[0].sample.target, clicks)


def image_panel(found: RunSample, window: Window | None = None) -> Panel:
    """The whole photograph; a rectangle shows what the other panels enlarge."""
    return Panel("image", found.sample.image, outlined=window)


def target_panel(found: RunSample, window: Window | None = None) -> Panel:
    """The photograph with the target."""
    return Panel("target", found.sample.image, target=found.sample.target, window=window)


def clicks_panel(found: RunSample, window: Window | None = None) -> Panel:
    """The photograph with the target and all clicks, numbered."""
    sample, clicks = found.sample, found.clicks(len(found.rows))
    return Panel("target and clicks", sample.image, target=sample.target, clicks=clicks, window=window)


def mask_panel(found: RunSample, number: int, window: Window | None, who: str = "") -> Panel:
    """The photograph with the mask kept after a click, the target, and the clicks so far.

    Args:
        found: the sample.
        number: of the click, from 1.
        window: the part of the image that is shown.
        who: "" or the method's name, to begin the title.
    """
    row, sample = found.rows[number - 1], found.sample
    mask = found.mask(number)
    absent = "" if mask is not None else "mask not stored"
    return Panel(
        f"{f'{who}, ' if who else ''}click {number}: IoU {row.iou:.3f}",
        sample.image,
        target=sample.target,
        mask=mask,
        clicks=found.clicks(number),
        marks="dots",
        absent="the method failed" if row.failure else absent,
        window=window,
    )


def mask_panels(found: RunSample, window: Window | None, who: str = "") -> tuple[Panel, ...]:
    """The masks after clicks 1, 5 and 20; of a sample with fewer clicks, also after its last one."""
    last = len(found.rows)
    numbers = dict.fromkeys(min(number, last) for number in SHOWN_CLICKS)
    return tuple(mask_panel(found, number, window, who) for number in numbers)
