"""Recipes: all load, every override is checked, and what is wrong is named with what would be right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest

from disbench.core.errors import InputError
from disbench.datasets.instances import AnnotatedImages
from disbench.io import definitions
from disbench.sampling.recipes import METHODS, Recipe, SourceName, load_recipe
from disbench.sampling.sources import SourcePaths, open_source
from disbench.shards.reader import image_folders
from tests.annotations import annotation, write_annotations
from tests.refusals import refuses

NAMES = definitions.names("sampling")


def test_the_recipes_that_the_paper_and_its_controls_need() -> None:
    hierarchy = {"coco-hierarchy", "coco-lvis-hierarchy", "lvis-hierarchy"}
    proximity = {"coco-lvis-proximity", "coco-proximity", "sbd-proximity", "voc-proximity"}
    assert set(NAMES) >= hierarchy | proximity | {"containment", "random-merge"}
    assert {load_recipe(name).method for name in NAMES} == set(METHODS)
    for name in NAMES:
        recipe = load_recipe(name)
        assert (recipe.name, bool(recipe.description)) == (name, True)
        assert all(recipe.method == method for method in METHODS if name.endswith(method))
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


@pytest.mark.parametrize("override", ["min_aera=5", "min_area=1.5", "method=proximty", "cap=0"])
def test_overrides_that_are_wrong(override: str) -> None:
    refuses(f"--set.*{override.partition('=')[0]}", load_recipe, "containment", [override])


def test_an_unknown_name_tells_the_nearest_or_all() -> None:
    refuses("unknown recipe 'lvis-hierachy'; did you mean 'lvis-hierarchy'", load_recipe, "lvis-hierachy")
    refuses(f"unknown recipe 'qqqq'; known: {', '.join(NAMES)}", load_recipe, "qqqq")


OWN = 'method = "proximity"\nsources = ["lvis"]\ndescription = "mine"\n'


def test_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN + "cap = 4\nbox_share = 1\n")
    expected = Recipe("own", "mine", "proximity", ("lvis",), cap=4, box_share=1.0)
    assert load_recipe(str(path)) == expected
    monkeypatch.chdir(tmp_path)
    assert load_recipe("own.toml", ["cap=5"]) == dataclasses.replace(expected, cap=5)
    path.write_text(OWN + 'name = "other"')
    assert load_recipe("own.toml").name == "other"
    for content, named in (('description = ""\nsources = ["lvis"]', "'method'"), (OWN + "cap = 0", "cap = 0")):
        path.write_text(content)
        refuses(rf"own\.toml: .*{named}", load_recipe, "own.toml")


def test_where_definitions_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "_PACKAGE", tmp_path / "disbench")
    refuses("'sampling' are missing from this installation", definitions.folder, "sampling")
    for place, name in (("sampling", "beside"), ("disbench/_definitions/sampling", "inside")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{name}.toml").touch()
        assert definitions.names("sampling") == [name]


A = (Path("a.json"),)
F = Path("folder")


class TestSources:
    @pytest.mark.parametrize(
        ("paths", "chosen"),
        [
            (SourcePaths(), None),
            (SourcePaths(coco=A, lvis=A), "coco+lvis"),
            (SourcePaths(panoptic=A, lvis=A), "coco+lvis"),
            (SourcePaths(panoptic=A, coco=A), "coco"),
            (SourcePaths(voc=F), "voc"),
            (SourcePaths(photos=True), "photos"),
        ],
    )
    def test_the_paths_tell_the_source(self, paths: SourcePaths, chosen: SourceName | None) -> None:
        assert paths.chosen() == chosen
        with pytest.raises(InputError, match=r"^--coco and --sbd and --voc "):
            SourcePaths(coco=A, sbd=F, voc=F).chosen()

    @pytest.mark.parametrize(
        ("name", "paths"), [("sbd-proximity", SourcePaths(lvis=A)), *((name, SourcePaths()) for name in NAMES)]
    )
    def test_no_source_or_one_that_the_recipe_does_not_take(self, name: str, paths: SourcePaths) -> None:
        with pytest.raises(InputError, match=f"recipe '{name}' "):
            open_source(load_recipe(name), paths)

    @pytest.mark.parametrize(
        ("name", "missing"),
        [("lvis-hierarchy", "lvis/lvis_v1_train.json"), ("voc-proximity", "VOC2012/ImageSets/Segmentation/train.txt")],
    )
    def test_datasets_are_looked_for_under_the_data_root(self, tmp_path: Path, name: str, missing: str) -> None:
        with pytest.raises(InputError) as caught:
            open_source(load_recipe(name), SourcePaths(data=tmp_path))
        assert str(tmp_path / missing) in str(caught.value)

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
