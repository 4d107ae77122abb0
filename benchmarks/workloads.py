"""The figures of the speed suite: disbench and the bare work under it, on the same data."""

from __future__ import annotations

import io
import math
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from inputs import Array, ClickState, simulated_states, write_scaled
from paired_timing import Pair
from PIL import Image
from pycocotools import mask as coco_mask

from disbench.core import masks, metrics
from disbench.core.clicks import Click, error_masks, next_click
from disbench.core.depths import transform
from disbench.core.errors import InputError, unknown_name
from disbench.core.prediction import Prediction
from disbench.core.samples import Sample
from disbench.core.scenes import SampledScene, Scene
from disbench.datasets.images import ImageFinder, read_rgb
from disbench.datasets.instances import AnnotatedImages, AnnotationFile, open_annotations
from disbench.datasets.json_index import index_json
from disbench.datasets.photos import ANNOTATIONS, open_photos, photo_path
from disbench.datasets.targets import RULES
from disbench.harness.evaluation import evaluate
from disbench.sampling.job import make_shards
from disbench.sampling.recipes import Recipe, load_recipe
from disbench.sampling.sampled_scene import sample_scene
from disbench.shards.manifest import Tally
from disbench.shards.reader import ShardReader
from disbench.shards.rows import ROWS_PER_GROUP, Chunk, ShardWriter, row_bytes, to_batch

SCENES = 64
"""Scenes that are sampled, written and read."""
TARGETS = 4
"""Objects to click, 20 times each."""
_SAMPLES, _CLICKS = 1000, 20
_LOADED_SCENES = 24
"""Scenes loaded by the data loader."""
_SLOW_ROUNDS = 5
"""Rounds of figures that start processes, which take about a second each."""


@dataclass(frozen=True)
class Workload:
    """Inputs of the figures.

    Attributes:
        data: root of the real datasets; None for the embedded photos.
        folder: folder for temporary files.
        scenes: as `SCENES`; there are fewer photos.
        targets: as `TARGETS`.
        json_bytes: approximate size of the JSON file.
    """

    data: Path | None
    folder: Path
    scenes: int = SCENES
    targets: int = TARGETS
    json_bytes: int = 3_000_000

    @cached_property
    def annotations(self) -> AnnotationFile:
        """Annotations of COCO, or of the photos."""
        if self.data is None:
            return open_photos()
        return open_annotations(self.data / "coco" / "instances_train.json", "coco")

    @cached_property
    def source(self) -> AnnotatedImages:
        """The scenes of the annotations."""
        return AnnotatedImages([self.annotations])

    @cached_property
    def scenes_read(self) -> list[Scene]:
        """The scenes, in memory."""
        return list(self.source.read(range(min(self.scenes, len(self.source)))))

    @cached_property
    def rles(self) -> list[masks.Rle]:
        """All masks of the scenes."""
        return [rle for scene in self.scenes_read for rle in scene.rles]

    def recipe(self, name: str) -> Recipe:
        """Load a recipe."""
        return load_recipe(name)

    @cached_property
    def sampled(self) -> list[SampledScene]:
        """The scenes with sets from the proximity method; scenes without a set are dropped."""
        scenes = (sample_scene(scene, self.recipe("coco-proximity")) for scene in self.scenes_read)
        return [scene for scene in scenes if scene.sets]

    @cached_property
    def shards(self) -> Path:
        """The sampled scenes as a finished folder of shards."""
        out = self.folder / "shards"
        make_shards(_InMemory(self.scenes_read), self.recipe("coco-proximity"), out)
        return out

    @cached_property
    def table(self) -> pa.Table:
        """The sampled scenes as an Arrow table."""
        return pa.Table.from_batches([to_batch(self.sampled)])

    def image(self, file_name: str) -> Path | None:
        """Path of an image of the scenes."""
        return photo_path(file_name) if self.data is None else ImageFinder([self.data / "coco"])(file_name)

    @cached_property
    def images(self) -> list[Path]:
        """Images of the scenes: JPEG, except for some of the photos."""
        found = (self.image(scene.file_name) for scene in self.scenes_read[:24])
        return [path for path in found if path is not None]

    @cached_property
    def mask_files(self) -> list[Path]:
        """PNG masks: DAVIS's, or masks of the photos."""
        if self.data is not None:
            return sorted((self.data / "DAVIS" / "gt").iterdir())[::60]
        paths = [self.folder / f"mask-{number}.png" for number in range(8)]
        for path, rle in zip(paths, cycle(self.rles), strict=False):
            Image.fromarray(masks.decode(rle).view(np.uint8) * 255).save(path)
        return paths

    @cached_property
    def click_states(self) -> list[ClickState]:
        """Inputs of simulated users: ragged predictions of growing quality."""
        targets = (RULES["any-channel"](path, 0) for path in self.mask_files[: self.targets])
        return list(simulated_states(targets))


@dataclass(frozen=True)
class _InMemory:
    """Scenes in memory as a `SceneSource`."""

    scenes: Sequence[Scene]
    name: str = "memory"

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, indices: Sequence[int]) -> Iterator[Scene]:
        return (self.scenes[index] for index in indices)

    def fingerprint(self) -> dict[str, str]:
        return {}


def pairs(work: Workload, only: Sequence[str] | None = None) -> Iterator[Pair]:
    """The figures whose names start with one of `only`, or all; each is prepared lazily.

    Raises:
        InputError: no figure has such a name.
    """
    for name in only or ():
        if not any(known.startswith(name) for known in FIGURES):
            raise unknown_name("figure", name, tuple(FIGURES))
    for name, figure in FIGURES.items():
        if only is None or name.startswith(tuple(only)):
            yield figure(work, name)


def click(work: Workload, name: str) -> Pair:
    errors = [_padded(state) for state in work.click_states]
    return Pair(
        name,
        lambda: _for_each(lambda state: next_click(*state), work.click_states),
        lambda: _for_each(lambda pair: [transform(mask) for mask in pair], errors),
        "two distance transforms of the whole image",
        len(errors),
        "click",
    )


def iou(work: Workload, name: str) -> Pair:
    return Pair(
        name,
        lambda: _for_each(lambda state: metrics.iou(state.target, state.prediction), work.click_states),
        lambda: _for_each(lambda state: _bare_iou(state.target, state.prediction), work.click_states),
        "the same in bare NumPy",
        len(work.click_states),
        "mask",
    )


def boundary_iou(work: Workload, name: str) -> Pair:
    bounds = [metrics.TargetBoundary(state.target) for state in work.click_states]
    side = 2 * round(0.02 * math.hypot(*work.click_states[0].target.shape)) + 1
    kernel = np.ones((side, side), dtype=np.uint8)
    return Pair(
        name,
        lambda: _for_each(lambda pair: pair[0].iou(pair[1].prediction), zip(bounds, work.click_states, strict=True)),
        lambda: _for_each(lambda state: cv2.erode(state.prediction.view(np.uint8), kernel), work.click_states),
        "OpenCV's erosion of the whole image",
        len(bounds),
        "mask",
    )


def noc(work: Workload, name: str) -> Pair:
    ious = _ious()
    return _metric_pair(name, lambda: metrics.noc(ious, 0.9), lambda: _bare_noc(ious).mean())


def nof(work: Workload, name: str) -> Pair:
    ious = _ious()
    return _metric_pair(name, lambda: metrics.nof(ious, 0.9), lambda: _bare_nof(ious))


def curve(work: Workload, name: str) -> Pair:
    ious = _ious()
    return _metric_pair(name, lambda: metrics.miou_curve(ious), lambda: ious.mean(axis=0, dtype=np.float64))


def hierarchy(work: Workload, name: str) -> Pair:
    return _sampling_pair(work, name, "coco-hierarchy")


def proximity(work: Workload, name: str) -> Pair:
    return _sampling_pair(work, name, "coco-proximity")


def sampling(work: Workload, name: str) -> Pair:
    path, dialect = _large_json(work), "photos" if work.data is None else "lvis"
    recipe = work.recipe("lvis-hierarchy")

    def ours() -> None:
        with tempfile.TemporaryDirectory() as out:
            make_shards(AnnotatedImages([open_annotations(path, dialect)]), recipe, out)

    return Pair(
        name,
        ours,
        partial(_parse_and_rasterise, path),
        "orjson.loads and pycocotools' polygons",
        1,
        "file",
        rounds=_SLOW_ROUNDS,
        turns=1,
    )


def shard_writing(work: Workload, name: str) -> Pair:
    path = work.folder / "bare.parquet"
    return Pair(
        name,
        partial(_write, work),
        lambda: pq.write_table(work.table, path, compression="zstd", row_group_size=ROWS_PER_GROUP),
        "pyarrow writing the same Arrow table",
        len(work.sampled),
        "scene",
    )


def shard_reading(work: Workload, name: str) -> Pair:
    return Pair(
        name,
        lambda: _for_each(lambda scene: scene, ShardReader(work.shards)),
        partial(_read_raw, work.shards),
        "pyarrow reading the same Parquet",
        len(work.sampled),
        "scene",
    )


def shuffled_reading(work: Workload, name: str) -> Pair:
    order = np.random.default_rng(0).permutation(len(work.sampled)).tolist()

    def ours() -> None:
        reader = ShardReader(work.shards, cached_groups=1)  # as in large folders: most scenes are in another group
        _for_each(lambda index: reader[index], order)

    return Pair(
        name, ours, partial(_read_raw, work.shards), "pyarrow reading the same Parquet", len(order), "scene", turns=1
    )


def loading(work: Workload, name: str, workers: int) -> Pair:
    from torch.utils.data import DataLoader, Subset  # noqa: PLC0415

    from disbench.shards.training_set import DiverseSetDataset, list_collate  # noqa: PLC0415

    dataset = DiverseSetDataset(work.shards, work.image)
    firsts = np.cumsum([0, *(len(scene.sets) for scene in work.sampled[:-1])])
    chosen = Subset(dataset, np.random.default_rng(0).permutation(firsts)[:_LOADED_SCENES].tolist())

    def ours() -> float:
        begun = _cpu_seconds()
        for _ in DataLoader(chosen, batch_size=1, num_workers=workers, collate_fn=list_collate):
            pass
        return _cpu_seconds() - begun

    return Pair(
        name,
        ours,
        partial(_read_raw, work.shards),
        "pyarrow reading the Parquet of as many scenes",
        len(chosen),
        "scene",
        rounds=_SLOW_ROUNDS,
        turns=1,
        share=len(chosen) / len(firsts),
    )


def json_index(work: Workload, name: str) -> Pair:
    path = _large_json(work)
    return _parsing_pair(path, name, lambda: index_json(path))


def annotations(work: Workload, name: str) -> Pair:
    path, dialect = _large_json(work), "photos" if work.data is None else "lvis"
    return _parsing_pair(path, name, lambda: open_annotations(path, dialect))


def harness(work: Workload, name: str) -> Pair:
    samples = list(_samples(work))
    predictions = {sample.id: [state.prediction for state in found] for sample, found in samples}
    return Pair(
        name,
        lambda: _discard_result(
            lambda: evaluate(_PreparedMethod(predictions), [sample for sample, _ in samples], max_clicks=_CLICKS - 1)
        ),
        lambda: _for_each(lambda state: next_click(*state), [state for _, found in samples for state in found[:-1]]),
        "the click simulation alone",
        len(samples) * (_CLICKS - 1),
        "click",
    )


def startup(work: Workload, name: str) -> Pair:
    return Pair(
        name,
        partial(_run_python, "-m", "disbench", "--help"),
        partial(_run_python, "-c", "pass"),
        "python -c pass",
        1,
        "start",
        rounds=_SLOW_ROUNDS,
    )


def image_decoding(work: Workload, name: str) -> Pair:
    return _decoding_pair(name, work.images, read_rgb, "image")


def mask_decoding(work: Workload, name: str) -> Pair:
    return _decoding_pair(name, work.mask_files, lambda path: RULES["any-channel"](path, 0), "mask")


FIGURES: dict[str, Callable[[Workload, str], Pair]] = {
    "click": click,
    "metrics-iou": iou,
    "metrics-boundary": boundary_iou,
    "metrics-noc": noc,
    "metrics-nof": nof,
    "metrics-curve": curve,
    "hierarchy": hierarchy,
    "proximity": proximity,
    "sampling": sampling,
    "shard-writing": shard_writing,
    "shard-reading": shard_reading,
    "shard-shuffled": shuffled_reading,
    "loading-0": partial(loading, workers=0),
    "loading-1": partial(loading, workers=1),
    "loading-2": partial(loading, workers=2),
    "json-index": json_index,
    "json-annotations": annotations,
    "harness": harness,
    "startup": startup,
    "decode-images": image_decoding,
    "decode-masks": mask_decoding,
}
"""Every figure by its name."""


def _for_each(work: Callable[[object], object], items: object) -> None:
    for item in items:  # type: ignore[attr-defined]
        work(item)


def _padded(state: ClickState) -> list[Array]:
    """Both kinds of errors, padded with zeros for the distance transform."""
    return [np.pad(errors, 1).view(np.uint8) for errors in error_masks(state.target, state.prediction)]


def _bare_iou(target: Array, prediction: Array) -> float:
    inside = target == 1
    union = np.count_nonzero((inside | prediction) & (target >= 0))
    return float(np.count_nonzero(inside & prediction) / max(union, 1))


def _ious() -> Array:
    """Random increasing IoUs: float32 (samples, clicks)."""
    noise = np.random.default_rng(0)
    return np.sort(noise.beta(5, 1, (_SAMPLES, _CLICKS)).astype(np.float32), axis=1)


def _bare_noc(ious: Array) -> Array:
    reached = ious >= np.float32(0.9)
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, ious.shape[1])


def _bare_nof(ious: Array) -> int:
    return int((~(ious >= np.float32(0.9)).any(axis=1)).sum())


def _metric_pair(name: str, ours: Callable[[], object], bare: Callable[[], object]) -> Pair:
    return Pair(
        name, partial(_discard_result, ours), partial(_discard_result, bare), "the same in bare NumPy", 1, "run"
    )


def _discard_result(call: Callable[[], object]) -> None:
    call()


def _sampling_pair(work: Workload, name: str, recipe_name: str) -> Pair:
    recipe = work.recipe(recipe_name)
    return Pair(
        name,
        lambda: _for_each(lambda scene: sample_scene(scene, recipe), work.scenes_read),
        lambda: _for_each(masks.decode, work.rles),
        "decoding each mask once",
        len(work.scenes_read),
        "scene",
    )


def _parse_and_rasterise(path: Path) -> None:
    content = orjson.loads(path.read_bytes())
    images = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"]))


def _write(work: Workload) -> None:
    """Write all scenes to a finished shard."""
    out = work.folder / "written"
    out.mkdir(exist_ok=True)
    writer = ShardWriter(out, work.recipe("coco-proximity").shard_bytes, "speed")
    for first in range(0, len(work.sampled), 64):
        scenes = work.sampled[first : first + 64]
        sizes = [row_bytes(scene) for scene in scenes]
        tallies = [Tally(1, 1, len(scene.scene.objects), len(scene.sets), Counter()) for scene in scenes]
        indices = range(first, first + len(scenes))
        writer.add(Chunk(indices, list(range(len(scenes))), tallies, sizes, to_batch(scenes)))
    writer.close()


def _read_raw(folder: Path) -> None:
    for path in sorted(folder.glob("*.parquet")):
        pq.ParquetFile(path).read()


def _large_json(work: Workload) -> Path:
    """An LVIS file, or that of the photos, repeated to `json_bytes`."""
    path = work.folder / "large.json"
    if not path.exists():
        source = ANNOTATIONS if work.data is None else work.data / "lvis" / "lvis_val_100.json"
        write_scaled(source, max(1, work.json_bytes // source.stat().st_size), path)
    return path


def _parsing_pair(path: Path, name: str, ours: Callable[[], object]) -> Pair:
    content = path.read_bytes()
    return Pair(
        name,
        partial(_discard_result, ours),
        lambda: _discard_result(lambda: orjson.loads(content)),
        "orjson.loads of the same bytes",
        1,
        "file",
    )


def _samples(work: Workload) -> Iterator[tuple[Sample, list[ClickState]]]:
    """Each target as a sample, with the inputs of its 20 clicks."""
    remaining = iter(work.click_states)
    for number in range(len(work.click_states) // _CLICKS):
        states = list(islice(remaining, _CLICKS))
        target = states[0].target
        yield Sample(f"s{number}", np.zeros((*target.shape, 3), dtype=np.uint8), target), states


class _PreparedMethod:
    """A method that immediately returns a prepared answer for each click."""

    def __init__(self, predictions: dict[str, list[Array]]) -> None:
        self._predictions = iter(predictions.values())

    def open(self, image: Array) -> _PreparedSession:
        return _PreparedSession(next(self._predictions))


class _PreparedSession:
    """One sample of `_PreparedMethod`."""

    def __init__(self, predictions: list[Array]) -> None:
        self._predictions = predictions

    def predict(self, clicks: list[Click]) -> Prediction:
        return Prediction(self._predictions[len(clicks)][None])


def _run_python(*arguments: str) -> float:
    """CPU seconds of a Python process from start to exit."""
    begun = _cpu_seconds()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return _cpu_seconds() - begun


def _cpu_seconds() -> float:
    """CPU seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _decoding_pair(name: str, paths: Sequence[Path], read: Callable[[Path], object], item: str) -> Pair:
    if not paths:
        raise InputError(f"{name}: no files found; check DISBENCH_DATA")
    contents = [path.read_bytes() for path in paths]
    return Pair(
        name,
        lambda: _for_each(read, paths),
        lambda: _for_each(lambda content: Image.open(io.BytesIO(content)).load(), contents),
        "Pillow's decoding alone",
        len(paths),
        item,
    )
