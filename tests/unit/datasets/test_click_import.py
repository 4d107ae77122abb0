"""Clicks of other tools as recorded clicks: a table with every oddity of RClicks', CSV, recordings, scribbles."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.datasets.cards import open_dataset
from disbench.datasets.click_import import import_clicks, stroke_click
from disbench.datasets.layouts import private_id
from disbench.io.recorded_clicks import read_recording, read_sequences
from tests.commands import disbench, refused
from tests.refusals import refuses
from tests.toy_methods import __file__ as toys

STEM = "young woman ____ no. 1.5"
COLUMNS = "dataset,image_stem,full_stem,click_type,model_type,object_stem,x,y,w,h,device"
TABLE = f"""{COLUMNS}
GrabCut,NA,NA,first,,,3.7,4.2,20,16,pc
GrabCut,b,b,first,,,10,8,20,16,mobile
TETRIS,{STEM},{STEM}_______65793,first,,65793,4,5,20,16,pc
GrabCut,NA,NA,first,,,20,5,20,16,mobile
GrabCut,NA,NA,first,,,13,11,40,32,pc
GrabCut,NA,NA_sam_fn_pc_3,fn,sam,,1,1,20,16,pc
GrabCut,gone,gone,first,,,1,1,20,16,pc
GrabCut,NA,NA_mivos_fp,fp,mivos,,1,1,20,16,pc
Berkeley,189011a,189011a,first,,,19.9,-2,20,16,mobile
DAVIS,b,b,first,,,7,7,20,16,pc
TETRIS,alone,alone,first,,,2,3,20,16,mobile
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four datasets of images of 20 x 16 pixels, whose objects are the rectangle x 2 to 14, y 3 to 12."""
    image, mask = np.full((16, 20, 3), 90, np.uint8), np.zeros((16, 20), np.uint8)
    mask[3:13, 2:15] = 255
    coloured = np.zeros((16, 20, 3), np.uint8)
    coloured[3:13, 2:15], coloured[0, 0] = (1, 1, 1), (9, 0, 7)
    for folder, pixels, *stems in (
        *(("GrabCut/data_GT", image, "NA", "b"), ("GrabCut/boundary_GT", mask, "NA", "b")),
        *(("Berkeley/images", image, "189011a"), ("Berkeley/masks", mask, "189011a")),
        *(("DAVIS/img", image, "b"), ("DAVIS/gt", mask, "b"), ("TETRIS/images", image, STEM, "alone")),
        *(("TETRIS/masks", coloured, STEM), ("TETRIS/masks", np.where(coloured == 1, np.uint8(255), 0), "alone")),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for stem in stems:
            Image.fromarray(pixels).save(tmp_path / folder / f"{stem}.png")
    (tmp_path / "clicks.csv").write_text(TABLE)
    return tmp_path


def imported(data: Path, form: str, file: str, dataset: str, *more: str) -> str:
    command = ("clicks", "import", form, data / file, "--dataset", dataset, "--out", data / f"{dataset}.parquet", *more)
    result = disbench(*command, DISBENCH_DATA=str(data))
    assert result.returncode == 0, result.stderr
    return result.stdout


def rows(path: Path) -> list[tuple[str, str, int, int]]:
    found = pq.read_table(path).to_pylist()
    assert all(row["click"] == 1 and row["positive"] for row in found)
    return [(row["sample"], row["user"], row["x"], row["y"]) for row in found]


def test_every_oddity_of_rclicks_table(data: Path) -> None:
    command = ("clicks", "import", "rclicks", data / "clicks.csv", "--dataset", "grabcut", "--out", data / "no.parquet")
    refused(disbench(*command, DISBENCH_DATA=str(data)), "clicks.csv", "'gone'", "--missing drop")
    assert not (data / "no.parquet").exists()
    said = imported(data, "rclicks", "clicks.csv", "grabcut", "--missing", "drop")
    path = data / "grabcut.parquet"
    assert rows(path) == [  # the row on 40 x 32 pixels is 6.5, 5.5 on 20 x 16; that at x = w is clipped
        *(("NA", "pc-0001", 3, 4), ("NA", "mobile-0001", 19, 5), ("NA", "pc-0002", 6, 5)),
        ("b", "mobile-0001", 10, 8),
    ]
    for part in (
        *(": 11 rows (", "4 of other datasets", "2 later clicks", "1 on 1 samples that grabcut does not have"),
        *(": 4 clicks", "on 2 samples (", "1 off the target", "1 clipped", "1 measured on another size"),
    ):
        assert part in said
    metadata = pq.read_schema(path).metadata
    assert metadata[b"disbench.source"].decode() == hashlib.sha256(TABLE.encode()).hexdigest()
    assert metadata[b"disbench.synthetic-users"] == b"rows"
    imported(data, "rclicks", "clicks.csv", "grabcut", "--missing", "drop", "--scale", "none")
    assert rows(path)[2] == ("NA", "pc-0002", 13, 11)
    imported(data, "rclicks", "clicks.csv", "berkeley")
    assert rows(data / "berkeley.parquet") == [("189011a", "mobile-0001", 19, 0)]
    imported(data, "rclicks", "clicks.csv", "davis")
    assert rows(data / "davis.parquet") == [("b", "pc-0001", 7, 7)]
    imported(data, "rclicks", "clicks.csv", "tetris")
    hidden = hashlib.sha256(STEM.encode()).hexdigest()[:16]
    found = [(f"{hidden}/65793", "pc-0001", 4, 5), (private_id("alone"), "mobile-0001", 2, 3)]
    assert sorted(rows(data / "tetris.parquet")) == sorted(found)


def test_all_of_them_are_first_clicks(data: Path) -> None:
    imported(data, "rclicks", "clicks.csv", "grabcut", "--missing", "drop")
    task = ("run", "--task", "first-clicks", "--method", f"{toys}:Discs", "--dataset", "grabcut", "--data", data)
    command = (*task, "--workers", "1", "--out", data / "run")
    refused(disbench(*command), "--policy replay:FILE")
    command = (*command, "--policy", f"replay:{data / 'grabcut.parquet'}")
    refused(disbench(*command, "--selection", "score"), "--selection")
    result = disbench(*command)
    assert "2 samples, 6 first clicks" in result.stdout, result.stderr
    found = pq.read_table(data / "run" / "first_clicks.parquet").to_pylist()
    expected = [(None, True), ("pc-0001", True), ("mobile-0001", False), ("pc-0002", True)]
    assert [(row["user"], row["on_target"]) for row in found[:4]] == expected
    for arguments in (("verify", data / "run"), ("pack", data / "run"), ("compare", data / "run", data / "run")):
        refused(disbench(*arguments), "first-clicks")


@pytest.mark.parametrize(
    ("old", "new", "mentions"),
    [
        (",3.7,", ",left,", "line 2"),
        (",3.7,", ",nan,", "line 2"),
        ("first,,,3.7", "second,,,3.7", "line 2"),
        ("20,16,pc", "0,16,pc", "line 2"),
        (",mobile\n", ",tablet\n", "line 3"),
        ("16,pc", "16,pc,1", "line 2"),
        ("device", "phone", "device"),
        ("GrabCut", "Object_CutOut", "Object_CutOut"),
    ],
)
def test_wrong_tables(data: Path, old: str, new: str, mentions: str) -> None:
    every = -1 if old == "GrabCut" else 1
    (data / "clicks.csv").write_text(TABLE.replace(old, new, every))
    source = open_dataset("grabcut", data)
    with pytest.raises(InputError, match=rf"clicks\.csv.*{mentions}"):
        import_clicks("rclicks", data / "clicks.csv", source, data / "no.parquet", drop_missing=True)


def test_any_csv_and_recordings(data: Path) -> None:
    (data / "own.csv").write_text("sample,x,y,user,positive\nb,3,4,ann,true\nNA,5,5,bo,1\nb,0,0,ann,false\n")
    said = imported(data, "csv", "own.csv", "grabcut")
    assert "3 clicks of 2 users on 2 samples" in said
    ann = read_recording(data / "grabcut.parquet", "ann")
    assert [*ann.clicks["b"]] == [Click(3, 4, positive=True), Click(0, 0, positive=False)]
    (data / "again.parquet").write_bytes((data / "grabcut.parquet").read_bytes())
    imported(data, "recording", "again.parquet", "grabcut")
    assert read_sequences(data / "grabcut.parquet") == read_sequences(data / "again.parquet")
    (data / "own.csv").write_text("sample,x,y\nb,3,4\nb,25,4\n")
    with pytest.raises(InputError, match=r"own\.csv, line 3"):  # no size says what it was measured on
        import_clicks("csv", data / "own.csv", open_dataset("grabcut", data), data / "no.parquet")


def test_the_click_of_a_stroke_is_in_the_middle_of_the_largest() -> None:
    strokes = np.zeros((30, 60), bool)
    strokes[2:7, 2:9] = True
    strokes[12:17, 5:44] = True  # deepest: row 14, columns 7 to 41
    assert stroke_click(strokes) == (24, 14)


@pytest.mark.real_data
def test_strokes_of_people(data_root: Path, tmp_path: Path) -> None:
    folder, source = data_root / "grabcut_scribbles", open_dataset("grabcut", data_root)
    if not folder.is_dir():
        pytest.skip("no scribbles in DISBENCH_DATA")
    refuses("'124084'", import_clicks, "scribbles", folder, source, tmp_path / "no.parquet")
    import_clicks("scribbles", folder, source, tmp_path / "clicks.parquet", drop_missing=True)
    found = read_sequences(tmp_path / "clicks.parquet")
    assert [one.user for one in found] == ["scribbles-set-1", "scribbles-set-2"] * 49
    for one in found[::7]:
        values = np.asarray(Image.open(folder / one.user / f"{one.sample}-anno.png"))
        _, labels, stats, _ = cv2.connectedComponentsWithStats((values == 1).astype(np.uint8))
        largest = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        (click,) = one.clicks
        outside = np.argwhere(~np.pad(largest, 1)) - 1
        depths = [((outside - place) ** 2).sum(axis=1).min() for place in np.argwhere(largest)]
        assert ((outside - (click.y, click.x)) ** 2).sum(axis=1).min() == max(depths)
        assert largest[click.y, click.x]


def test_tetris_shrinks_and_tells_no_names(data: Path) -> None:
    image, mask = np.zeros((6, 4100, 3), np.uint8), np.zeros((6, 4100, 3), np.uint8)
    mask[1:3, 100:2000], mask[3:5, 1500:4000] = (1, 2, 3), (0, 0, 1)
    for folder in ("images", "masks"):
        for path in (data / "TETRIS" / folder).iterdir():
            path.unlink()
    Image.fromarray(image).save(data / "TETRIS" / "images" / f"{STEM}.png")
    Image.fromarray(mask).save(data / "TETRIS" / "masks" / f"{STEM}.png")
    first, second = (3 << 16) + (2 << 8) + 1, 1 << 16
    source = open_dataset("tetris", data)
    assert source.ids == [f"{private_id(STEM)}/{code}" for code in sorted((first, second))]
    sizes = (2048, int(6 / 4100 * 2048 + 0.5))
    small = {
        code: cv2.resize((np.asarray(mask) == colour).all(axis=2).astype(np.uint8), sizes) > 0
        for code, colour in ((first, (1, 2, 3)), (second, (0, 0, 1)))
    }
    small[second] &= ~small[first]  # the larger code wins
    for number, code in enumerate(sorted(small)):
        sample = source.read(number)
        assert sample.image.shape == (sizes[1], sizes[0], 3)
        assert np.array_equal(sample.target == 1, small[code])
    whole = open_dataset("tetris", data, ["longest_side=0", "ids=stem"])
    assert whole.ids[0].startswith(STEM)
    assert whole.read(0).image.shape == image.shape
    assert whole.content_hash() != source.content_hash()
    (data / "TETRIS" / "masks" / f"{STEM}.png").write_bytes(b"")
    said = refuses("", source.read, 0)
    assert private_id(STEM) in said
    assert STEM not in said


def test_reports_show_no_picture_of_tetris(data: Path) -> None:
    command = ("run", "--method", f"{toys}:Discs", "--dataset", "tetris", "--data", data, "--max-clicks", "2")
    assert disbench(*command, "--workers", "1", "--out", data / "run").returncode == 0
    for stem in (STEM, "alone"):
        assert not any(stem.encode() in path.read_bytes() for path in (data / "run").iterdir())
    refused(disbench("failures", data / "run", "--out", data / "pictures", "--data", data), "tetris")
