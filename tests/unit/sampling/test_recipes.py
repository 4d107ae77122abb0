"""Recipes: all load, every override is checked, and what is wrong is named with what would be right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from disbench.core.errors import InputError, unknown_name
from disbench.datasets.instances import AnnotatedImages
from disbench.io import definitions
from disbench.sampling.recipes import METHODS, Recipe, SourceName, load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.shards.reader import image_folders
from tests.annotations import annotation, write_annotations

NAMES = definitions.names("sampling")


def test_the_recipes_that_the_paper_and_its_controls_need() -> None:
    hierarchy = {"coco-hierarchy", "coco-lvis-hierarchy", "lvis-hierarchy"}
    proximity = {"coco-lvis-proximity", "coco-proximity", "sbd-proximity", "voc-proximity"}
    assert set(NAMES) >= hierarchy | proximity | {"containment", "random-merge"}
    assert {load_recipe(name).method for name in NAMES} == set(METHODS)
    for name in NAMES:
        recipe = load_recipe(name)
        for method in METHODS:
            if name.endswith(method):
                assert recipe.method == method


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.sources
    assert json.loads(json.dumps(recipe.as_dict())) == {**recipe.as_dict(), "sources": list(recipe.sources)}


def test_recipes_that_differ_from_the_defaults_on_purpose() -> None:
    assert load_recipe("sbd-proximity").min_box_fill == 0.08
    voc = load_recipe("voc-proximity")
    assert (voc.dilated, voc.iterations) == ("both", 3)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    recipe = load_recipe("coco-lvis-proximity")
    assert {key: value for key, value in recipe.as_dict().items() if value != defaults[key]} == {
        "name": "coco-lvis-proximity",
        "description": recipe.description,
        "method": "proximity",
        "sources": ["coco+lvis", "hannotation", "photos"],
    }


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("min_area=1", "min_area", 1),
        ("seed=12345678901234567890", "seed", 12345678901234567890),
        ("box_share=1", "box_share", 1.0),
        ("min_box_fill=0", "min_box_fill", 0.0),
        ("stuff=false", "stuff", False),
        ("nest=union", "nest", "union"),
        ("sources=coco+lvis, photos", "sources", ("coco+lvis", "photos")),
        ("name=mine", "name", "mine"),
    ],
)
def test_overrides_take_the_kind_of_their_option(override: str, key: str, value: Any) -> None:
    recipe = load_recipe("containment", [override])
    assert getattr(recipe, key) == value
    assert type(getattr(recipe, key)) is type(value)
    assert dataclasses.replace(recipe, **{key: getattr(load_recipe("containment"), key)}) == load_recipe("containment")


@pytest.mark.parametrize(
    "override",
    [
        *("min_aera=5", "min_area=1.5", "method=proximty", "sources=", "min_area=0", "seed=-1", "iterations=0"),
        *("min_overlap=0", "cap=0", "largest_merge=0", "shard_bytes=4095", "box_share=1.01", "mask_share=-0.1"),
        *("min_box_fill=nan", "box_share=inf"),
    ],
)
def test_overrides_that_are_wrong(override: str) -> None:
    with pytest.raises(InputError, match=f"--set.*{override.partition('=')[0]}"):
        load_recipe("containment", [override])


def test_an_unknown_name_tells_the_nearest_or_all() -> None:
    with pytest.raises(InputError, match="unknown recipe 'lvis-hierachy'; did you mean 'lvis-hierarchy'"):
        load_recipe("lvis-hierachy")
    with pytest.raises(InputError, match=f"unknown recipe 'qqqq'; known: {', '.join(NAMES)}"):
        load_recipe("qqqq")
    assert str(unknown_name("fruit", "aple", ["cherry", "apple"])) == "unknown fruit 'aple'; did you mean 'apple'?"
    assert str(unknown_name("fruit", "x", ["pear", "apple"], "a.toml")) == (
        "a.toml: unknown fruit 'x'; known: apple, pear."
    )


class TestOwnFile:
    CONTENT = 'method = "proximity"\nsources = ["lvis"]\ndescription = "mine"\n'

    def put(self, folder: Path, content: str) -> str:
        path = folder / "own.toml"
        path.write_text(content, encoding="utf-8")
        return str(path)

    def test_it_is_loaded_from_its_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.put(tmp_path, self.CONTENT + "cap = 4\nbox_share = 1\n")
        expected = Recipe("own", "mine", "proximity", ("lvis",), cap=4, box_share=1.0)
        assert load_recipe(path) == expected
        assert isinstance(load_recipe(path).box_share, float)
        monkeypatch.chdir(tmp_path)
        assert load_recipe("own.toml", ["cap=5"]) == dataclasses.replace(expected, cap=5)

        assert load_recipe(self.put(tmp_path, self.CONTENT + 'name = "other"')).name == "other"

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ('sources = ["lvis"]\ndescription = ""', "'method'"),
            (CONTENT + "min_aera = 5", "'min_aera'; did you mean 'min_area'"),
            (CONTENT + "cap = 0", "cap = 0"),
            (CONTENT.replace('["lvis"]', "[]"), "sources"),
        ],
    )
    def test_what_is_wrong_is_named_with_the_file(self, tmp_path: Path, content: str, named: str) -> None:
        with pytest.raises(InputError, match=rf"own\.toml: .*{named}"):
            load_recipe(self.put(tmp_path, content))

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "folder.toml").mkdir()
        for name in ("none.toml", "folder.toml"):
            with pytest.raises(InputError, match=f"{name}: "):
                load_recipe(str(tmp_path / name))


class TestDefinitions:
    @pytest.mark.parametrize("kind", ["sampling", "datasets", "baselines", "reports"])
    def test_every_kind_has_its_folder(self, kind: definitions.Kind) -> None:
        assert definitions.folder(kind).is_dir()

    def test_names_are_the_files(self) -> None:
        files = definitions.folder("sampling").glob("*.toml")
        assert sorted(path.stem for path in files) == NAMES
        for name in NAMES:
            assert definitions.find("sampling", name).stem == name
        with pytest.raises(InputError, match="'no-such-card'"):
            definitions.find("datasets", "no-such-card")

    def test_where_definitions_lie(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(definitions, "_PACKAGE", tmp_path / "disbench")
        with pytest.raises(InputError, match="'sampling' are missing from this installation"):
            definitions.folder("sampling")
        (tmp_path / "sampling").mkdir()
        (tmp_path / "sampling" / "beside.toml").write_text("")
        assert definitions.names("sampling") == ["beside"]
        inside = tmp_path / "disbench" / "_definitions" / "sampling"
        inside.mkdir(parents=True)
        (inside / "inside.toml").write_text("")
        assert definitions.names("sampling") == ["inside"]


A = (Path("a.json"),)
F = Path("folder")


class TestSources:
    @pytest.mark.parametrize(
        ("paths", "chosen"),
        [
            (SourcePaths(), None),
            (SourcePaths(lvis=A), "lvis"),
            (SourcePaths(coco=A), "coco"),
            (SourcePaths(coco=A, lvis=A), "coco+lvis"),
            (SourcePaths(panoptic=A), "coco"),
            (SourcePaths(panoptic=A, lvis=A), "coco+lvis"),
            (SourcePaths(panoptic=A, coco=A), "coco"),
            (SourcePaths(sbd=F), "sbd"),
            (SourcePaths(voc=F), "voc"),
            (SourcePaths(hannotation=F), "hannotation"),
            (SourcePaths(photos=True), "photos"),
        ],
    )
    def test_the_paths_tell_the_source(self, paths: SourcePaths, chosen: SourceName | None) -> None:
        assert paths.chosen() == chosen

    @pytest.mark.parametrize(
        ("paths", "options"),
        [
            (SourcePaths(lvis=A, sbd=F), "--lvis and --sbd"),
            (SourcePaths(lvis=A, coco=A, photos=True), "--lvis and --coco and --photos"),
            (SourcePaths(panoptic=A, voc=F), "--panoptic and --voc"),
            (SourcePaths(sbd=F, voc=F, hannotation=F), "--sbd and --voc and --hannotation"),
        ],
    )
    def test_sources_that_do_not_go_together(self, paths: SourcePaths, options: str) -> None:
        with pytest.raises(InputError, match=f"^{options} "):
            paths.chosen()

    @pytest.mark.parametrize(
        ("name", "paths"), [("sbd-proximity", SourcePaths(lvis=A)), *((name, SourcePaths()) for name in NAMES)]
    )
    def test_no_source_or_one_that_the_recipe_does_not_take(self, name: str, paths: SourcePaths) -> None:
        with pytest.raises(InputError, match=f"recipe '{name}' "):
            open_source(load_recipe(name), paths)

    @pytest.mark.parametrize(
        ("name", "missing"),
        [
            ("lvis-hierarchy", "lvis/lvis_v1_train.json"),
            ("coco-proximity", "coco/annotations/instances_train2017.json"),
            ("coco-lvis-proximity", "lvis/lvis_v1_train.json"),
            ("sbd-proximity", "SBD/train.txt"),
            ("voc-proximity", "VOC2012/ImageSets/Segmentation/train.txt"),
        ],
    )
    def test_datasets_are_looked_for_under_the_data_root(self, tmp_path: Path, name: str, missing: str) -> None:
        with pytest.raises(InputError) as caught:
            open_source(load_recipe(name), SourcePaths(data=tmp_path))
        assert str(tmp_path / missing) in str(caught.value)

    def test_the_default_file_is_opened(self, tmp_path: Path) -> None:
        (tmp_path / "lvis").mkdir()
        write_annotations(tmp_path / "lvis" / "lvis_v1_train.json", [annotation(1)])
        source = open_source(load_recipe("lvis-hierarchy"), SourcePaths(data=tmp_path))
        assert (source.name, len(source)) == ("lvis", 1)

    def test_relative_paths_are_found_here_first_then_under_the_data_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, root = tmp_path / "here", tmp_path / "root"
        for folder in (here, root):
            folder.mkdir()
        monkeypatch.chdir(here)
        paths = SourcePaths(data=root)
        write_annotations(root / "a.json", [annotation(1)])
        assert paths.find(Path("a.json")) == root / "a.json"
        write_annotations(here / "a.json", [annotation(2)])
        assert paths.find(Path("a.json")) == Path("a.json")
        assert paths.find(root / "b.json") == root / "b.json"
        assert SourcePaths().find(Path("c.json")) == Path("c.json")

    def test_the_recipes_options_reach_the_source(self, tmp_path: Path) -> None:
        bad = annotation(2, 5)
        path = write_annotations(tmp_path / "a.json", [annotation(1), bad])
        recipe = load_recipe("lvis-hierarchy", ["bad_annotations=drop", "raster=fillpoly"])
        source = open_source(recipe, SourcePaths(lvis=[path]))
        assert isinstance(source, AnnotatedImages)
        assert (source.files[0].bad, source.raster, source.dropped.total()) == ("drop", "fillpoly", 1)
        with pytest.raises(InputError, match="annotation 2 is of image 5"):
            open_source(load_recipe("lvis-hierarchy"), SourcePaths(lvis=[path]))

    def test_every_source_can_be_opened_by_some_recipe(self) -> None:
        taken = {source for name in NAMES for source in load_recipe(name).sources}
        assert taken == set(get_args(SourceName))
        for name in NAMES:
            recipe = load_recipe(name)
            if "photos" in recipe.sources:
                assert len(open_source(recipe, SourcePaths(photos=True))) == 8

    def test_image_folders_that_exist(self, tmp_path: Path) -> None:
        (tmp_path / "coco").mkdir()
        (tmp_path / "VOC2007").mkdir()
        assert image_folders("coco+lvis", tmp_path) == [tmp_path / "coco"]
        assert image_folders("voc", tmp_path) == [tmp_path / "VOC2007"]
        assert image_folders("hannotation", tmp_path) == image_folders("coco", None) == []
