# ruff: noqa: PLC0415  (each part runs in the environment with its own libraries)
"""Check that disbench samples and benchmarks annotations exported by other tools, with the same masks as pycocotools.

    python benchmarks/exports.py make DIR     # in an environment with some of the tools
    python benchmarks/exports.py check DIR    # in the environment of disbench

`make` takes six COCO photographs from $DISBENCH_DATA (one with a crowd region) and exports them with every installed
library; repeat it in several environments: datumaro (CVAT's exporter), supervision, sahi and labelme2coco; fiftyone;
label-studio-sdk, imantics, pylabel and globox. `check` runs `disbench sample` and `disbench run` on each export,
compares areas with pycocotools' `annToMask` on the same file, and prints one table row per export.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
Exporter = Callable[[Path, Path], None]
PICTURES = 6
EXPORTERS: dict[str, tuple[str, Exporter]] = {}
"""Name of an export -> its library, and the function that exports from the source folder to a new folder."""


def exporter(name: str, library: str) -> Callable[[Exporter], Exporter]:
    """Register the maker of an export."""

    def register(export_all: Exporter) -> Exporter:
        EXPORTERS[name] = library, export_all
        return export_all

    return register


def write_source(folder: Path) -> None:
    """Write photographs with three to eight objects and one with a crowd region, in COCO's layout."""
    root = Path(os.environ["DISBENCH_DATA"]) / "coco"
    coco = json.loads((root / "instances_val.json").read_text())
    objects = Counter(annotation["image_id"] for annotation in coco["annotations"])
    crowded = {annotation["image_id"] for annotation in coco["annotations"] if annotation["iscrowd"]}
    small = [image for image in coco["images"] if 3 <= objects[image["id"]] <= 8 and image["id"] not in crowded]
    crowded_images = [image for image in coco["images"] if objects[image["id"]] < 25 and image["id"] in crowded]
    coco["images"] = small[: PICTURES - 1] + crowded_images[:1]
    chosen = {image["id"] for image in coco["images"]}
    coco["annotations"] = [annotation for annotation in coco["annotations"] if annotation["image_id"] in chosen]
    pictures = folder / "images" / "default"
    pictures.mkdir(parents=True)
    for image in coco["images"]:
        shutil.copy(root / "images" / image["file_name"], pictures)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(coco))


def write_options(out: Path, **options: str) -> None:
    """Write the dataset options with which disbench reads an export; paths are relative to its folder."""
    (out / "read.json").write_text(json.dumps(options))


def source_paths(source: Path) -> tuple[Path, Path]:
    """The source's annotations and photographs."""
    return source / "annotations" / "instances_default.json", source / "images" / "default"


# --- datumaro, the exporter of CVAT


def datumaro(source: Path, out: Path, layout: str, *, as_masks: bool, **options: object) -> None:
    from datumaro import Dataset

    dataset = Dataset.import_from(str(source), "coco_instances")
    if as_masks:
        dataset.transform("polygons_to_masks")
    dataset.export(str(out), layout, save_media=True, **options)


@exporter("datumaro coco", "datumaro")
def _(source: Path, out: Path) -> None:
    datumaro(source, out, "coco_instances", as_masks=False)
    write_options(out, annotations="annotations/instances_default.json", images="images/default")


@exporter("datumaro coco, brush masks", "datumaro")
def _(source: Path, out: Path) -> None:
    datumaro(source, out, "coco_instances", as_masks=True, segmentation_mode="mask")
    write_options(out, annotations="annotations/instances_default.json", images="images/default", crowds="keep")


@exporter("datumaro voc", "datumaro")
def _(source: Path, out: Path) -> None:
    datumaro(source, out, "voc_instance_segmentation", as_masks=True)
    write_options(out, images="JPEGImages", masks="SegmentationObject", mode="instances")


# --- supervision, sahi, labelme2coco


@exporter("supervision coco", "supervision")
def _(source: Path, out: Path) -> None:
    import supervision

    annotations, images = source_paths(source)
    dataset = supervision.DetectionDataset.from_coco(str(images), str(annotations), force_masks=True)
    dataset.as_coco(str(out / "images"), str(out / "annotations.json"))
    write_options(out, annotations="annotations.json", images="images")


@exporter("sahi coco", "sahi")
def _(source: Path, out: Path) -> None:
    from sahi.utils.coco import Coco

    annotations, images = source_paths(source)
    coco = Coco.from_coco_dict_or_path(str(annotations), image_dir=str(images))
    (out / "coco.json").write_text(json.dumps(coco.json))
    shutil.copytree(images, out / "images")
    write_options(out, annotations="coco.json", images="images")


@exporter("sahi slices", "sahi")
def _(source: Path, out: Path) -> None:
    from sahi.slicing import slice_coco

    annotations, images = map(str, source_paths(source))
    slice_coco(annotations, images, "sliced", output_dir=str(out), slice_height=256, slice_width=256)
    write_options(out, annotations="sliced_coco.json", images=".")


@exporter("labelme2coco", "labelme2coco")
def _(source: Path, out: Path) -> None:
    import labelme2coco

    annotations, images = source_paths(source)
    coco = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    shutil.copytree(images, out / "labels")
    for image in coco["images"]:
        shapes = [
            {"label": names[annotation["category_id"]], "shape_type": "polygon", "group_id": annotation["id"],
             "points": np.reshape(ring, (-1, 2)).tolist(), "flags": {}}
            for annotation in coco["annotations"]
            if annotation["image_id"] == image["id"] and not annotation["iscrowd"]
            for ring in annotation["segmentation"]
        ]  # fmt: skip
        size = {"imageHeight": image["height"], "imageWidth": image["width"], "imageData": None}
        labelled = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image["file_name"], **size}
        (out / "labels" / image["file_name"]).with_suffix(".json").write_text(json.dumps(labelled))
    labelme2coco.convert(str(out / "labels"), str(out))
    write_options(out, annotations="dataset.json", images="labels")


# --- fiftyone; its exporters work without its database


def fiftyone(source: Path, exporter: Any, label: Callable[[Json, list[tuple[str, Any]]], Any]) -> None:
    from fiftyone import ImageMetadata
    from pycocotools.coco import COCO

    annotations, images = source_paths(source)
    coco = COCO(str(annotations))
    with exporter:
        for image in coco.dataset["images"]:
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            masks = [(coco.cats[each["category_id"]]["name"], coco.annToMask(each)) for each in found]
            path = str(images / image["file_name"])
            exporter.export_sample(path, label(image, masks), metadata=ImageMetadata.build_for(path))


def detections(image: Json, masks: list[tuple[str, Any]]) -> Any:
    from fiftyone import Detection, Detections

    found = []
    for name, mask in masks:
        rows, columns = np.nonzero(mask)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        width, height = image["width"], image["height"]
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        found.append(Detection(label=name, bounding_box=box, mask=mask[top:bottom, left:right].astype(bool)))
    return Detections(detections=found)


@exporter("fiftyone coco", "fiftyone")
def _(source: Path, out: Path) -> None:
    from fiftyone.utils.coco import COCODetectionDatasetExporter

    fiftyone(source, COCODetectionDatasetExporter(export_dir=str(out), tolerance=1.0), detections)
    write_options(out, annotations="labels.json", images="data")


@exporter("fiftyone coco, absolute paths", "fiftyone")
def _(source: Path, out: Path) -> None:
    from fiftyone.utils.coco import COCODetectionDatasetExporter

    fiftyone(source, COCODetectionDatasetExporter(export_dir=str(out), abs_paths=True), detections)
    write_options(out, annotations="labels.json", images="data")


@exporter("fiftyone segmentation", "fiftyone")
def _(source: Path, out: Path) -> None:
    from fiftyone import Segmentation
    from fiftyone.utils.data.exporters import ImageSegmentationDirectoryExporter

    def union(_: Json, masks: list[tuple[str, Any]]) -> Any:
        return Segmentation(mask=255 * np.any([mask for _, mask in masks], axis=0).astype(np.uint8))

    fiftyone(source, ImageSegmentationDirectoryExporter(export_dir=str(out)), union)
    write_options(out, images="data", masks="labels")


# --- Label Studio


def label_studio(source: Path, out: Path, layout: str, tag: str, result: Callable[[Json, Any], list[Json]]) -> None:
    from label_studio_sdk.converter import Converter
    from pycocotools.coco import COCO

    annotations, images = source_paths(source)
    coco = COCO(str(annotations))
    tasks = []
    (out / "images").mkdir()
    for number, image in enumerate(coco.dataset["images"], 1):
        uploaded = f"abcd1234-{image['file_name']}"
        shutil.copy(images / image["file_name"], out / "images" / uploaded)
        size = {"original_width": image["width"], "original_height": image["height"], "image_rotation": 0}
        results = [
            {"id": f"{each['id']}-{place}", "from_name": "label", "to_name": "image", "type": tag.lower(), **size,
             "value": {**value, tag.lower(): [coco.cats[each["category_id"]]["name"]]}}
            for each in coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False))
            for place, value in enumerate(result({**each, **image}, coco.annToMask(each)))
        ]  # fmt: skip
        answer = {"id": 100 + number, "result": results, "completed_by": 1}
        data = {"image": f"/data/upload/1/{uploaded}"}
        tasks.append({"id": number, "data": data, "annotations": [answer]})
    labels = "".join(f'<Label value="{category["name"]}"/>' for category in coco.dataset["categories"])
    view = f'<View><Image name="image" value="$image"/><{tag} name="label" toName="image">{labels}</{tag}></View>'
    (out / "tasks.json").write_text(json.dumps(tasks))
    converter = Converter(view, project_dir=str(out), download_resources=False)
    converter.convert(str(out / "tasks.json"), str(out), layout, is_dir=False)


@exporter("label studio polygons", "label-studio-sdk")
def _(source: Path, out: Path) -> None:
    def rings(each: Json, _: Any) -> list[Json]:
        size = np.array([each["width"], each["height"]])
        return [{"points": (np.reshape(ring, (-1, 2)) / size * 100).tolist()} for ring in each["segmentation"]]

    label_studio(source, out, "COCO", "PolygonLabels", rings)
    write_options(out, annotations="result.json", images="images")


@exporter("label studio brush", "label-studio-sdk")
def _(source: Path, out: Path) -> None:
    from label_studio_sdk.converter import brush

    def strokes(_: Json, mask: Any) -> list[Json]:
        return [{"format": "rle", "rle": brush.mask2rle(mask * 255)}]

    label_studio(source, out, "BRUSH_TO_COCO", "BrushLabels", strokes)
    write_options(out, annotations="result_coco.json", images="images")


# --- imantics, pylabel, globox


@exporter("imantics coco", "imantics")
def _(source: Path, out: Path) -> None:
    import imantics
    from pycocotools.coco import COCO

    annotations, images = source_paths(source)
    coco = COCO(str(annotations))
    dataset = imantics.Dataset("photographs")
    for image in coco.dataset["images"]:
        picture = imantics.Image.from_path(str(images / image["file_name"]))
        picture.id = image["id"]
        for each in coco.loadAnns(coco.getAnnIds(image["id"])):
            category = imantics.Category(coco.cats[each["category_id"]]["name"], id=each["category_id"])
            mask = imantics.Mask(coco.annToMask(each))
            picture.add(imantics.Annotation(picture, category, mask=mask, id=each["id"]))
        dataset.add(picture)
    (out / "coco.json").write_text(json.dumps(dataset.coco(), default=lambda number: number.item()))
    shutil.copytree(images, out / "images")
    write_options(out, annotations="coco.json", images="images")


@exporter("pylabel coco", "pylabel")
def _(source: Path, out: Path) -> None:
    from pylabel import importer

    annotations, images = source_paths(source)
    dataset = importer.ImportCoco(str(annotations), path_to_images=str(images))
    dataset.export.ExportToCoco(output_path=str(out / "coco.json"), cat_id_index=1)
    shutil.copytree(images, out / "images")
    write_options(out, annotations="coco.json", images="images")


@exporter("globox coco (boxes)", "globox")
def _(source: Path, out: Path) -> None:
    import globox

    annotations, images = source_paths(source)
    globox.AnnotationSet.from_coco(str(annotations)).save_coco(out / "coco.json", auto_ids=True)
    shutil.copytree(images, out / "images")
    write_options(out, annotations="coco.json", images="images")


def export_all(folder: Path) -> None:
    """Write every export whose library is installed."""
    source = folder / "source"
    if not source.exists():
        write_source(source)
    for name, (library, build) in EXPORTERS.items():
        try:
            release = version(library)
        except ModuleNotFoundError:
            continue
        out = folder / re.sub(r"\W+", "_", name)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        build(source.resolve(), out.resolve())
        reading = json.loads((out / "read.json").read_text())
        (out / "read.json").write_text(json.dumps({"export": name, "tool": f"{library} {release}", **reading}))
        print(f"{name}: {library} {release}")


# --- in disbench's environment


def command(*words: object) -> str:
    """Run a disbench command; returns its summary, including what was skipped, or its error."""
    done = subprocess.run(
        [sys.executable, "-m", "disbench", *map(str, words)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return "; ".join(re.sub("; method.*| in 1 shards.*", "", line.strip()) for line in done.stdout.splitlines())


def compare_areas(folder: Path, annotations: str, samples: list[Any]) -> str:
    """How many samples have the same area as pycocotools' mask."""
    from pycocotools.coco import COCO

    sys.stdout, stdout = open(os.devnull, "w"), sys.stdout  # noqa: SIM115, PTH123  (COCO prints)
    coco = COCO(str(folder / annotations))
    sys.stdout = stdout
    for each in coco.dataset["annotations"]:
        if isinstance(each["segmentation"], list):  # pycocotools fails if the first ring has fewer than three points
            each["segmentation"] = [ring for ring in each["segmentation"] if len(ring) >= 6]
    reference = Counter(int(coco.annToMask(each).sum()) for each in coco.dataset["annotations"] if each["segmentation"])
    ours = Counter(int((sample.target == 1).sum()) for sample in samples)
    return f"{sum((ours & reference).values())} of {len(samples)}"


def check(folder: Path) -> None:
    """Sample and benchmark each export, and print a table with its areas compared with pycocotools'."""
    from disbench.datasets.cards import open_dataset

    print("| export | tool | sample | run | areas as pycocotools |\n| --- | --- | --- | --- | --- |")
    for path in sorted(folder.glob("*/read.json")):
        reading = json.loads(path.read_text())
        title, tool, export = reading.pop("export"), reading.pop("tool"), path.parent
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary)
            sampled, areas = "", ""
            dataset = ["coco", "--data", export] if "annotations" in reading else [export]
            if annotations := reading.get("annotations"):
                file = export / annotations
                sampled = command("sample", "coco-hierarchy", "--coco", file, "--out", out / "sets", "--workers", 1)
            options = [word for name, value in reading.items() for word in ("--dataset-option", f"{name}={value}")]
            limits = ["--workers", 1, "--max-clicks", 2]
            ran = command("run", "--method", "disk", "--dataset", *dataset, *options, "--out", out / "run", *limits)
            if annotations and not ran.startswith("error"):
                source = open_dataset("coco", export, options[1::2])
                areas = compare_areas(export, annotations, [source.read(index) for index in range(len(source.ids))])
            cells = [
                title,
                tool,
                *(
                    re.sub(rf"{re.escape(str(out))}/\w+: |{re.escape(str(folder))}/", "", text)
                    for text in (sampled, ran)
                ),
            ]
        print("|", " | ".join([*cells, areas]), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "check"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    {"make": export_all, "check": check}[arguments.action](arguments.folder)
