"""Regression check for refactoring: rerun commands and compare hashes of their output with fixed.json.

    python benchmarks/fixed.py [--only PREFIX] [--record]

Prints "same" or "DIFFERS" for each entry, and exits with 1 if any differs; `--record` rewrites fixed.json. Runs the
commands of this checkout, which need `DISBENCH_DATA` and `disbench methods fetch mobilesam`.

- `recipes`: the names printed by `disbench sample --list`.
- `shards/RECIPE/SOURCE/bytes`: the shard files; `/rows`: only their rows; `/manifest`: the manifest without versions
  (`VERSIONED`; per file `VERSIONED_OF_A_FILE`). The bytes include a fingerprint of the recipe, its description, and
  the versions of Python and libraries; with other versions compare the rows. `/exit`: the exit code of an error.
- `clicks/METHOD`: the rows of a run on GrabCut's first 5 images (DISNet: 2), without columns of seconds.
- `reports/...`: numbers of reports regenerated from the packed runs. `committed/...`: numbers of the committed files,
  the same if both exist; the runs of `reports/ambiguity` and `reports/ablations` are not committed.

Hashes do not depend on the names or the order of a report's rows. CSV: each row's fields that are numbers, and the
columns `CONTEXT`; rows sorted. Markdown and LaTeX tables: the numbers in each right-aligned column (names are
left-aligned) without footnote marks, sorted; cells without a number are ignored. Page: the sort values of its tables,
sorted.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT, RECORD = Path(__file__).resolve().parents[1], Path(__file__).with_suffix(".json")
VERSIONED, VERSIONED_OF_A_FILE = ("versions", "fingerprint"), ("bytes", "sha256")
OUT, RUNS, CONTEXT = "reports/leaderboard", "reports/leaderboard/runs", ("dataset", "measure")
LVIS, COCO = "--lvis lvis/lvis_val_100.json", "--coco coco/instances_val.json"
OUTER, PANOPTIC = "--set join=outer", "--panoptic coco_panoptic/panoptic_val2017.json"
ANY, BOTH = "containment random-merge", "coco-lvis-hierarchy coco-lvis-proximity"
SOURCES = {  # options, recipes
    "lvis": (LVIS, f"{ANY} lvis-hierarchy"),
    "lvis-union": (f"{LVIS} --set nest=union", "lvis-hierarchy"),
    "lvis-fillpoly": (f"{LVIS} --set raster=fillpoly", "lvis-hierarchy"),
    "coco": (COCO, f"{ANY} coco-hierarchy coco-proximity"),
    "coco+lvis": (f"{LVIS} {COCO}", f"{ANY} {BOTH}"),
    "coco+lvis-outer": (f"{LVIS} {COCO} {OUTER}", f"{ANY} {BOTH}"),
    "panoptic": (f"{LVIS} {COCO} {PANOPTIC} {OUTER}", f"{ANY} {BOTH}"),
    "sbd-train": ("--sbd SBD --split train", f"{ANY} sbd-proximity"),
    "sbd-val": ("--sbd SBD --split val", f"{ANY} sbd-proximity"),
    "voc": ("--voc VOC2007 --split trainval", f"{ANY} voc-proximity"),
    "clothing": ("--lvis clothing/paco_style.json", "paco-parts"),
    "ade20k": ("--folder ade20k_sample --split train", "ade-parts"),
    "photos-geometric": ("--photos --set links=geometric", "lvis-hierarchy"),
    "photos": ("--photos", f"{ANY} coco-hierarchy coco-proximity {BOTH} lvis-hierarchy"),
}
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")
TABLES = {  # regex of a table (alignment; rows), end of a row, separator of cells
    ".md": (r"^(\|(?: ---:? \|)+)\n((?:\|[^\n]*\n?)*)", "\n", r"(?<!\\)\|"),
    ".tex": (r"\\begin\{tabular\}\{(\w+)\}.*?\\midrule(.*?)\\bottomrule", r"\\", r"(?<!\\)&"),
}
MARKS = re.compile(r"<sup>.*?</sup>|\\textsuperscript\{[^{}]*\}")
Entries = Iterator[tuple[str, str]]


def disbench(command: str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "disbench", *command.split(), *more]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(f"  exit code {ended.returncode}: {command}: {ended.stderr.strip()[-300:]}", file=sys.stderr)
    return ended


def hashed(value: Any) -> str:
    return hashlib.sha256(value if isinstance(value, bytes) else json.dumps(value).encode()).hexdigest()


def rows(path: Path) -> str:
    names = [name for name in pq.read_schema(path).names if not name.endswith("_seconds")]
    return hashed(repr(pq.read_table(path, columns=names).to_pylist()))


def shards(name: str, folder: Path) -> Entries:
    files = sorted(folder.glob("shard-*.parquet"))
    manifest = json.loads((folder / "manifest.json").read_text())
    plain = {key: value for key, value in manifest.items() if key not in VERSIONED}
    plain["files"] = [{k: v for k, v in f.items() if k not in VERSIONED_OF_A_FILE} for f in manifest["files"]]
    yield f"{name}/bytes", hashed([hashed(path.read_bytes()) for path in files])
    yield f"{name}/rows", hashed([rows(path) for path in files])
    yield f"{name}/manifest", hashed(sorted(plain.items()))


def numbers(path: Path) -> list[Any]:
    if path.suffix == ".csv":
        lines = csv.DictReader(path.read_text().splitlines(keepends=True))
        read = [row for row in lines if any(map(NUMBER.fullmatch, row.values()))]
        return sorted([p for p in row.items() if p[0] in CONTEXT or NUMBER.fullmatch(p[1])] for row in read)
    text = MARKS.sub("", path.read_text()).replace("\N{MINUS SIGN}", "-").replace("{-}", "-")
    if path.suffix == ".html":
        return sorted(re.findall(r'<td class="n" data-value="([^"]+)"', text))
    table, ending, between = TABLES[path.suffix]
    columns: dict[tuple[int, int], list[list[str]]] = {}
    for number, (ruler, body) in enumerate(re.findall(table, text, re.MULTILINE | re.DOTALL)):
        aligned = ruler.replace(" ---: |", "r").replace(" --- |", "l")
        for row in body.split(ending):
            for column, (side, cell) in enumerate(zip(aligned, re.split(between, row), strict=False)):
                if side == "r" and NUMBER.search(cell):
                    columns.setdefault((number, column), []).append(NUMBER.findall(cell))
    return sorted((place, sorted(cells)) for place, cells in columns.items())


def reports(name: str, folder: Path) -> Entries:
    for path in sorted(path for path in folder.rglob("*.*") if path.suffix in {".csv", ".html", *TABLES}):
        if path.name != "README.md" and "published" not in path.parts:
            yield f"{name}/{path.relative_to(folder).as_posix()}", hashed(numbers(path))


def entries(place: Path, only: str) -> Entries:
    """All entries whose name starts with `only`, and some others."""
    if "recipes".startswith(only):
        yield "recipes", hashed(sorted(re.findall(r"^\S+", disbench("sample --list").stdout, re.MULTILINE)))
    for source, (options, recipes) in SOURCES.items():
        for name, recipe in ((f"shards/{recipe}/{source}", recipe) for recipe in recipes.split()):
            if name.startswith(only) or only.startswith(name):
                code = disbench(f"sample {recipe} {options} --out", str(place / name)).returncode
                yield from [(f"{name}/exit", str(code))] if code else shards(name, place / name)
    for method in ("disk", "geodesic", "grabcut", "mobilesam", "disnet"):
        name, limit = f"clicks/{method}", 2 if method == "disnet" else 5
        run = f"run --method {method} --dataset grabcut --limit {limit} --workers 1 --out"
        if name.startswith(only) and not disbench(run, str(place / name)).returncode:
            yield name, rows(place / name / "clicks.parquet")
    if OUT.startswith(only) or only.startswith(OUT):
        disbench(f"report {RUNS} --page --out", str(place / OUT))
        disbench(f"reproduce table1 --runs {RUNS} --out", str(place / OUT / "paper"))
        disbench(f"reproduce figure4 --csv --runs {RUNS} --out", str(place / OUT / "paper"))
    yield from reports("reports", place / "reports")
    yield from reports("committed", ROOT / "reports")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--record", action="store_true", help="rewrite the record")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only entries whose name starts with PREFIX")
    asked = parser.parse_args()
    before: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    now = {name: value for name, value in before.items() if not name.startswith(asked.only)}
    with tempfile.TemporaryDirectory() as place:
        for name, value in entries(Path(place), asked.only):
            if name.startswith(asked.only):
                now[name] = value
                print(f"{'same   ' if before.get(name) == value else 'DIFFERS'} {name}", flush=True)
    for name in sorted(before.keys() - now.keys()):
        print(f"DIFFERS {name}: not made")
    if asked.record:
        RECORD.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    sys.exit(not asked.record and now != before)


if __name__ == "__main__":
    main()
