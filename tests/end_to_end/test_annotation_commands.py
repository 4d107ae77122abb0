"""What an annotation file lacks is said at the end by `disbench sample` and `disbench run`, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from disbench.harness import read_run
from tests.annotations import HEIGHT, WIDTH, annotation, square, write_annotations
from tests.commands import disbench

RECORDS = (
    annotation(1),
    annotation(2, segmentation=None),
    annotation(3, segmentation=[*square(20, 20, 9), [1, 1, 5, 5]]),
    annotation(4, iscrowd=1),
    annotation(5, segmentation=[[1, 2, 3]] * 3),
    annotation(6, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
)
LEFT_OUT = {"empty mask": 2, "invalid annotation": 1, "ring of fewer than three points": 1}


def test_sample_and_run_say_what_they_leave_out(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "000000000001.jpg")
    write_annotations(tmp_path / "a.json", RECORDS)
    sampling = ("sample", "coco-hierarchy", "--coco", "a.json", "--out", "sets", "--set", "min_area=1")
    sampling += ("--workers", "1")
    running = ("run", "--method", "disk", "--dataset", "coco", "--data", ".", "--max-clicks", "1", "--out", "run")
    running += ("--dataset-option", "annotations=a.json", "--dataset-option", "images=.", "--workers", "1")
    for command, option in ((sampling, "--set"), (running, "--dataset-option")):
        refused = disbench(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"{option} bad_annotations=drop" in refused.stderr.splitlines()[-1]
        done = disbench(*command, option, "bad_annotations=drop", "--existing", "overwrite", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for reason, count in LEFT_OUT.items():
            assert f"left out: {count} x {reason}" in done.stdout
    assert json.loads((tmp_path / "sets" / "manifest.json").read_text())["dropped"] == LEFT_OUT
    assert read_run(tmp_path / "run").record.dataset.facts["left_out"] == {**LEFT_OUT, "crowd region": 1}
