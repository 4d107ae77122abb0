"""Does an installed system work? One embedded photo, three clicks, a verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from disbench.baselines.cards import load_card, method_spec
from disbench.baselines.installs import overrides, require_installed
from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.harness.evaluation import evaluate

_CLICKS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a method works, and the lines that say so."""

    works: bool
    lines: tuple[str, ...]


def check_method(name: str, variant: str = "", settings: Sequence[str] = ()) -> Verdict:
    """Run a method on the first object of the embedded photos, in this process.

    Args:
        name: a card's name or path (`.toml`), or a class.
        variant: of a bridged system that is installed; "" for its first, or for `settings` that name its places.
        settings: `option=value` each, over those of the variant.

    Returns:
        The verdict; what is missing or goes wrong is in its lines, not raised.
    """
    label = f"{name} {variant}".rstrip()
    try:
        bridged = ":" not in name and load_card(name).status == "bridge"
        own = {setting.partition("=")[0].strip() for setting in settings}
        given = overrides(require_installed(name, variant)) if bridged and not own & {"repo", "command"} else []
        spec = method_spec(name, [*given, *settings])
        begun = time.perf_counter()
        method = spec.build()
        ready = time.perf_counter()
        results = evaluate(
            method,
            [open_dataset("photos", None).read(0)],
            max_clicks=_CLICKS,
            threshold=spec.threshold,
            budget=spec.budget,
        )
    except InputError as error:
        return Verdict(False, (f"{label}: does not work: {error}",))
    seconds = (time.perf_counter() - ready) / len(results.rows)
    for sample, reason in results.failures.items():
        return Verdict(False, (f"{label}: does not work: on {sample}, {reason}",))
    ((sample, ious),) = results.ious.items()
    said = ", ".join(f"{iou:.2f}" for iou in ious)
    return Verdict(
        True,
        (f"{label}: works: IoU {said} on {sample}; ready in {ready - begun:.1f} s, {seconds:.2f} s a click",),
    )
