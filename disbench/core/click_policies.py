"""Simulated clicks: the protocol's centre click, and policies that test how robust a method is to other clicks.

Random policies seed their generator from the seed, the sample's id and the click's number only, so clicks do not
depend on order or worker processes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from disbench.core.arrays import BoolArray, Float32Array, IntArray
from disbench.core.clicks import NO_ERROR, Click, check_clicks, checked_mask, checked_target, error_masks, next_click
from disbench.core.depths import Depth, deepest, transform
from disbench.core.errors import InputError, opencv, quote, unknown_name

POLICIES: dict[str, dict[str, float]] = {
    "center": {},
    "random": {},
    "jitter": {"sigma": 0.3},
    "scipy-center": {},
    "scipy-restart": {},
    "removed-center": {},
    "slice": {"group": 1, "of": 10, "power": 1.0},
    "worst": {"candidates": 16},
    "best": {"candidates": 16},
}
"""Policy name -> options with their defaults.

- `center`: the protocol's click (`disbench.core.clicks.next_click`).
- `random`: uniform over the largest error: the 8-connected component with the most pixels, among false negatives and
  false positives; ties go to a false positive, then to the first in row-major order. Pixels clicked before do not
  count and are not drawn.
- `jitter`: the protocol's click, moved by Gaussian noise of `sigma` times its distance to the nearest pixel that is not
  an error of its kind (the radius of the largest inscribed disc), rounded to whole pixels, redrawn until it falls on
  the same component and not on an earlier click; after 100 draws the protocol's click itself.
- `scipy-center`: the protocol's click by SciPy's exact transform (float64), which picks other pixels on some exact ties
  (f-BRS, FCANet).
- `scipy-restart`: the same; if nothing is left to click, the click for an empty prediction (FocusCut).
- `removed-center`: pixels clicked before no longer count as errors, which changes the distances around them; ignored
  pixels count as background; one of the pixels of the largest distance is drawn (InterFormer). As everywhere, the
  click is positive only if a false negative's distance is strictly larger.
- `slice`: drawn at a chosen depth (`draw_from_slice`). Each error pixel of the kind that the protocol clicks is
  weighted by its distance to the nearest other pixel, to the `power`, or 0 if clicked before; ordered by weight, pixels
  are cut into `of` slices of equal mass, shallowest first, and one pixel of slice `group` is drawn.
- `worst`, `best`: the candidate (`ClickPolicy.candidates`) after which the method's IoU is smallest (largest); the
  harness asks the method. `simulate` alone gives the first candidate, the protocol's click.

If there is no error, all but `scipy-restart` give the protocol's `Click(0, 0, False)`.
"""
RANDOM_POLICIES = ("random", "jitter", "removed-center", "slice")  # policies whose clicks depend on the seed
CLICKS_WITHOUT_ERROR = ("scipy-restart", "removed-center")  # policies that may click although the prediction is perfect
EXTREMES = {"worst": -1, "best": 1}  # policies that try candidates -> sign that makes the wanted IoU the largest
SLICE_SERIES, EXTREME_SERIES = "slices", "extremes"
"""Series of policies: `slices:10` is the protocol's click and each of 10 slices; `extremes:16` is the protocol's click,
and the worst and the best of 16 candidates."""
REPLAY = "replay"  # the policy that replays recorded clicks
_RECORDING_PATTERN = re.compile(r"(?P<file>.+?)(?:,\s*user=(?P<user>[^,]+))?(?:,\s*clicks=(?P<digest>[0-9a-f]{16}))?")
_MAX_DRAWS = 100
_MIN_DEPTH = 1.5  # minimum depth of candidates of `worst` and `best`, pixels


@dataclass(frozen=True)
class Recording:
    """Recorded clicks of one user; `file` is a bare name once `disbench.io.recorded_clicks` has read them.

    `user` is "" if the file has a single user; `digest` (16 hexadecimal digits of the clicks' hash) is "" until read.
    """

    file: str
    user: str = ""
    digest: str = ""
    clicks: Mapping[str, Sequence[Click]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Recording:
        """Parse `FILE`, `FILE,user=NAME` or `FILE,user=NAME,clicks=DIGEST`; InputError for other text."""
        found = _RECORDING_PATTERN.fullmatch(text.strip())
        if found is None:
            raise InputError(f"policy {REPLAY}: needs recorded clicks: {REPLAY}:FILE or {REPLAY}:FILE,user=NAME")
        return cls(found["file"].strip(), (found["user"] or "").strip(), found["digest"] or "")

    def __str__(self) -> str:
        """The form that `parse` reads."""
        user = f",user={self.user}" if self.user else ""
        return f"{self.file}{user}" + (f",clicks={self.digest}" if self.digest else "")

    def check_inside(self, sample: str, shape: tuple[int, ...]) -> None:
        """Raise InputError unless all clicks on a sample lie in its image of `shape` (height, width)."""
        for number, click in enumerate(self.clicks.get(sample, ()), 1):
            if not (0 <= click.x < shape[1] and 0 <= click.y < shape[0]):
                raise InputError(
                    f"{self.file}: click {number} on the sample {quote(sample)} is at x = {click.x}, y = {click.y}, "
                    f"outside its image of {shape[1]} x {shape[0]} pixels; correct the file"
                )


def is_replay(policy: str) -> bool:
    """True if a policy, as stored in results, replays recorded clicks."""
    return policy.partition(":")[0].strip() == REPLAY


@dataclass(frozen=True)
class ClickPolicy:
    """A policy with its options.

    Attributes:
        name: one of `POLICIES`, or `REPLAY`; InputError for an unknown name, option or value.
        options: those that differ from the defaults; complete after construction.
        recording: the clicks, only for `REPLAY`.
    """

    name: str = "center"
    options: Mapping[str, float] = field(default_factory=dict)
    recording: Recording | None = None

    def __post_init__(self) -> None:
        if self.name == REPLAY and self.recording is not None:
            return
        if self.name not in POLICIES:
            raise unknown_name("policy", self.name, [*POLICIES, REPLAY])
        defaults = POLICIES[self.name]
        for key, value in self.options.items():
            if not defaults:
                raise InputError(f"policy {self.name}: has no options; leave {key!r} out")
            if key not in defaults:
                raise unknown_name("option", key, defaults, f"policy {self.name}")
            if not (math.isfinite(value) and (value > 0 or (key, value) == ("power", 0))):
                raise InputError(f"policy {self.name}: {key} = {value}; give a number above 0")
        options = {**defaults, **self.options}
        for key in {"group", "of", "candidates"} & options.keys():
            if options[key] != int(options[key]) or options[key] > options.get("of", math.inf):
                raise InputError(f"policy {self.name}: {key} = {options[key]:g}; give a whole number, group up to of")
            options[key] = int(options[key])
        object.__setattr__(self, "options", options)

    @classmethod
    def parse(cls, text: str) -> ClickPolicy:
        """Parse `name` or `name:option=value,...`, as on the command line and in results.

        Does not read recorded clicks (`Recording.parse`); `disbench.harness.protocol` does.
        """
        name, _, rest = text.partition(":")
        if is_replay(text):
            return cls(REPLAY, recording=Recording.parse(rest))
        pairs = (part.strip().partition("=") for part in rest.split(",") if part.strip())
        return cls(name.strip(), {key.strip(): _parse_number(value) for key, _, value in pairs})

    def __str__(self) -> str:
        """The form that `parse` reads, with every option."""
        if self.recording is not None:
            return f"{self.name}:{self.recording}"
        options = ",".join(f"{key}={value!r}" for key, value in sorted(self.options.items()))
        return f"{self.name}:{options}" if options else self.name

    @property
    def label(self) -> str:
        """Name in tables: D1 to D10 for the slices of 10 by depth, `worst of 16`, otherwise as stored in results."""
        if self.name in EXTREMES:
            return f"{self.name} of {self.options['candidates']}"
        if self.name != "slice":
            return str(self)
        group, of, power = (self.options[key] for key in ("group", "of", "power"))
        more = [*([f"of {of}"] if of != 10 else []), *([f"power {power:g}"] if power != 1 else [])]
        return f"D{group}" + (f" ({', '.join(more)})" if more else "")

    def is_exhausted(self, sample: str, clicks: int) -> bool:
        """True if a sample's recorded clicks are exhausted; simulated clicks never are."""
        return self.recording is not None and clicks >= len(self.recording.clicks.get(sample, ()))

    def simulate(
        self,
        target: npt.ArrayLike,
        prediction: npt.ArrayLike,
        clicks: Sequence[Click] = (),
        *,
        seed: int = 0,
        sample: str = "",
    ) -> Click:
        """The next click; arguments and errors as for `next_click`, and ValueError if recorded clicks are exhausted."""
        if self.recording is not None:
            if self.is_exhausted(sample, len(clicks)):
                raise ValueError(f"no recorded click follows on the sample {sample!r} after {len(clicks)}")
            return self.recording.clicks[sample][len(clicks)]
        if self.name in ("center", *EXTREMES):
            return next_click(target, prediction, clicks)
        missed, excess = error_masks(target, prediction)
        check_clicks(clicks, missed.shape)
        if self.name == "removed-center":
            excess = checked_mask(prediction) & (checked_target(target) != 1)
            return _removed_center(missed, excess, clicks, _generator(seed, sample, len(clicks) + 1))
        if self.name in ("scipy-center", "scipy-restart"):
            found = _scipy_center(missed, excess, clicks)
            if found is None and self.name == "scipy-restart":
                found = _scipy_center(checked_target(target) == 1, np.zeros_like(excess), ())
            return found or NO_ERROR
        center = deepest(missed, excess, clicks)
        if center and self.name == "random":
            return _random_click(missed, excess, clicks, _generator(seed, sample, len(clicks) + 1))
        errors = missed if center and center.missed else excess
        drawn = self._slice if self.name == "slice" else self.jitter
        return drawn(errors, center, clicks, seed=seed, sample=sample) if center else NO_ERROR

    def candidates(self, target: npt.ArrayLike, prediction: npt.ArrayLike, clicks: Sequence[Click] = ()) -> list[Click]:
        """Clicks tried by `worst` and `best`: the protocol's, and others spread over errors of its kind.

        The region is all errors of that kind that were not clicked before and are at least 1.5 pixels from the nearest
        other pixel, or, if there are none, all that were not clicked before. Each further candidate is the pixel of the
        region farthest from all earlier ones, ties by row-major order. Arguments are as for `next_click`.
        """
        first = next_click(target, prediction, clicks)
        missed, excess = error_masks(target, prediction)
        depths = error_distances(missed if first.positive else excess, clicks)
        region = depths >= _MIN_DEPTH
        y, x = np.nonzero(region if region.any() else depths)
        clicks_tried, squares = [first], np.full(len(y), np.inf)
        while len(clicks_tried) < self.options["candidates"]:
            squares = np.minimum(squares, (x - clicks_tried[-1].x) ** 2 + (y - clicks_tried[-1].y) ** 2)
            if not squares.any():
                break
            farthest = int(squares.argmax())
            clicks_tried.append(Click(int(x[farthest]), int(y[farthest]), first.positive))
        return clicks_tried

    def _slice(self, errors: BoolArray, center: Depth, clicks: Sequence[Click], *, seed: int, sample: str) -> Click:
        depths = error_distances(errors, clicks)
        weights = np.where(depths > 0, depths ** np.float32(self.options["power"]), np.float32(0))
        draws = _generator(seed, sample, len(clicks) + 1)
        x, y = draw_from_slice(weights, int(self.options["group"]), int(self.options["of"]), draws)
        return Click(x, y, center.missed)

    def jitter(self, errors: BoolArray, center: Depth, clicks: Sequence[Click], *, seed: int, sample: str) -> Click:
        """The click of `jitter` around the protocol's; `errors` is boolean (height, width), of the centre's kind."""
        labels = opencv().connectedComponents(errors.astype(np.uint8), connectivity=8)[1]
        component = labels == labels[center.y, center.x]
        before = {(click.x, click.y) for click in clicks}
        draws = _generator(seed, sample, len(clicks) + 1)
        for dx, dy in np.rint(draws.normal(0.0, self.options["sigma"] * center.distance, (_MAX_DRAWS, 2))).tolist():
            x, y = center.x + int(dx), center.y + int(dy)
            if 0 <= x < errors.shape[1] and 0 <= y < errors.shape[0] and component[y, x] and (x, y) not in before:
                return Click(x, y, center.missed)
        return Click(center.x, center.y, center.missed)


def default_clicks(policy: str) -> int | None:
    """Default number of clicks per sample: 5 for policies that try several clicks; None for the protocol's default."""
    return 5 if policy.partition(":")[0].strip() in (EXTREME_SERIES, *EXTREMES) else None


def parse_series(policy: str) -> list[ClickPolicy]:
    """The policies in a series such as `slices:10` or `extremes:16`, the protocol's first; [] for a single policy."""
    name, _, count = policy.partition(":")
    name = name.strip()
    if name not in (SLICE_SERIES, EXTREME_SERIES):
        return []
    if not count.strip().isdecimal() or int(count) < 1:
        raise InputError(f"policy {name}: {count!r}; give a number, such as {SLICE_SERIES}:10 or {EXTREME_SERIES}:16")
    of = int(count)
    if name == EXTREME_SERIES:
        return [ClickPolicy(), *(ClickPolicy(extreme, {"candidates": of}) for extreme in EXTREMES)]
    return [ClickPolicy(), *(ClickPolicy("slice", {"group": group, "of": of}) for group in range(1, of + 1))]


def draw_from_slice(weights: Float32Array, group: int, of: int, draws: np.random.Generator) -> tuple[int, int]:
    """Draw a pixel (x, y) from one of `of` slices of equal mass, with pixels ordered by weight.

    Pixels of equal weight form a class, whose mass is its number of pixels times the weight; classes lie end to end,
    ascending, on [0, T]. Slice `group` (from 1) is [(group - 1) T / of, group T / of). u is drawn uniformly in it, then
    one pixel, in row-major order, of the class that contains u. So all slices have exactly the same mass, and pixels of
    a class are equally likely. `weights` are float32 (height, width), finite, non-negative, at least one positive.
    """
    flat = weights.reshape(-1)
    pixels = np.flatnonzero(flat)
    classes, of_pixel, counts = np.unique(flat[pixels], return_inverse=True, return_counts=True)
    ends = np.cumsum(counts * classes.astype(np.float64))
    u = draws.uniform((group - 1) * ends[-1] / of, group * ends[-1] / of)
    chosen = pixels[of_pixel == min(int(np.searchsorted(ends, u, side="right")), len(ends) - 1)]
    y, x = divmod(int(chosen[draws.integers(len(chosen))]), weights.shape[1])
    return x, y


def error_distances(errors: BoolArray, clicked: Sequence[Click]) -> Float32Array:
    """Distance of each error pixel to the nearest other pixel, 0 if clicked before; float32 (height, width)."""
    result = transform(np.pad(errors, 1).astype(np.uint8))[1:-1, 1:-1].copy()
    for click in clicked:
        result[click.y, click.x] = 0
    return result


def _scipy_center(missed: BoolArray, excess: BoolArray, clicks: Sequence[Click]) -> Click | None:
    """None if every error was clicked before."""
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415  (not needed by `center`, the default)

    largest, found = 0.0, None
    for errors, positive in ((excess, False), (missed, True)):
        rows, columns = np.flatnonzero(errors.any(axis=1)), np.flatnonzero(errors.any(axis=0))
        if not len(rows):
            continue
        top, left = int(rows[0]), int(columns[0])
        box = errors[top : rows[-1] + 1, left : columns[-1] + 1]  # all zero outside it, as outside the image
        distances = distance_transform_edt(np.pad(box, 1))[1:-1, 1:-1]
        for click in clicks:
            if errors[click.y, click.x]:
                distances[click.y - top, click.x - left] = 0
        y, x = divmod(int(distances.argmax()), box.shape[1])
        if distances[y, x] > largest:
            largest, found = float(distances[y, x]), Click(left + x, top + y, positive)
    return found


def _removed_center(missed: BoolArray, excess: BoolArray, clicks: Sequence[Click], draws: np.random.Generator) -> Click:
    found = {}
    for positive, errors in ((False, excess), (True, missed)):
        left = errors.copy()
        for click in clicks:
            left[click.y, click.x] = False
        found[positive] = error_distances(left, ())
    largest = {positive: float(of_kind.max()) for positive, of_kind in found.items()}
    if not max(largest.values()):
        return NO_ERROR
    chosen = largest[True] > largest[False]
    pixels = np.flatnonzero(found[chosen] == largest[chosen])
    y, x = divmod(int(pixels[draws.integers(len(pixels))]), missed.shape[1])
    return Click(x, y, chosen)


def _random_click(missed: BoolArray, excess: BoolArray, clicks: Sequence[Click], draws: np.random.Generator) -> Click:
    best: tuple[int, bool, IntArray] | None = None
    for errors, positive in ((excess, False), (missed, True)):
        pixels = _largest_component(errors, clicks)
        if len(pixels) and (best is None or len(pixels) > best[0]):
            best = (len(pixels), positive, pixels)
    assert best is not None
    y, x = divmod(int(best[2][draws.integers(best[0])]), missed.shape[1])
    return Click(x, y, best[1])


def _largest_component(errors: BoolArray, clicks: Sequence[Click]) -> IntArray:
    """Flat indices, ascending, of the largest component's pixels that were not clicked before."""
    count, labels = opencv().connectedComponents(errors.astype(np.uint8), connectivity=8)
    if count == 1:
        return np.zeros(0, dtype=np.int64)
    for click in clicks:
        labels[click.y, click.x] = 0
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count)[1:]
    largest = np.flatnonzero(sizes == sizes.max()) + 1
    firsts = [int((flat == label).argmax()) for label in largest] if len(largest) > 1 else [0]
    return np.flatnonzero(flat == largest[int(np.argmin(firsts))]) if sizes.max() else np.zeros(0, np.int64)


def _generator(seed: int, sample: str, click: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\n{click}\n{sample}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # rejected later, with the option's name


@dataclass(frozen=True, slots=True)
class Budget:
    """Points of the target given at once to a method without a click loop.

    The method answers once, so its result is an IoU at this budget, never a number of clicks (PROTOCOL: deviations
    between peers). `points` makes them from an object, bool (height, width) with at least one pixel, and its target.
    """

    count: int
    title: str
    points: Callable[[BoolArray, npt.NDArray[np.int8]], list[Click]]


def budget_points(name: str, target: npt.ArrayLike) -> list[Click]:
    """Points of a budget (one of `BUDGETS`) for a target, int (height, width) of 1, 0, -1, with an object."""
    checked = checked_target(target)
    return BUDGETS[name].points(checked == 1, checked)


def extreme_points(mask: BoolArray, target: npt.NDArray[np.int8]) -> list[Click]:
    """Left, top, right and bottom-most pixel of the object; of several the middle one (the first of two middles).

    DEXTR (Maninis et al. 2018, section 3) draws one of several, and in training moves it by up to ten pixels.
    """
    del target
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right, top, bottom = columns[0], columns[-1], rows[0], rows[-1]
    return [
        Click(int(left), _middle(mask[:, left]), True),
        Click(_middle(mask[top]), int(top), True),
        Click(int(right), _middle(mask[:, right]), True),
        Click(_middle(mask[bottom]), int(bottom), True),
    ]


def inside_and_corners(mask: BoolArray, target: npt.NDArray[np.int8]) -> list[Click]:
    """The protocol's first click, and as background clicks the top left and bottom right corner of the object's box.

    IOG (Zhang et al. 2020, section 3): an inside point near the center, and two corners of the box, which determine the
    others. The box is tight, in inclusive pixels; a method that needs a margin adds it.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [
        next_click(target, np.zeros_like(mask)),
        Click(int(columns[0]), int(rows[0]), False),
        Click(int(columns[-1]), int(rows[-1]), False),
    ]


def _middle(line: BoolArray) -> int:
    places = np.flatnonzero(line)
    return int(places[(len(places) - 1) // 2])


BUDGETS: Mapping[str, Budget] = {
    "extreme-points": Budget(4, "4 extreme points", extreme_points),
    "inside-and-corners": Budget(3, "a point inside and 2 corners of the box", inside_and_corners),
}
