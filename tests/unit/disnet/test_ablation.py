"""Ablations: what is trained and measured, where it lies, what is done once only, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from disbench.baselines.cards import method_spec
from disbench.cli import train as cli_train
from disbench.core.errors import InputError
from disbench.disnet.designs import DESIGNS
from disbench.disnet.method import described
from disbench.disnet.training import ablation
from disbench.disnet.training.ablation import AblationOptions, ablate
from disbench.disnet.training.settings import load_training
from disbench.harness import read_run
from disbench.harness.store import SECONDS
from disbench.io import definitions
from disbench.reports.ablation.plans import AblationPlan, chosen_datasets, load_plan, read_record
from disbench.reports.paper.definitions import PaperTable, read_definition
from tests.annotations import annotation, write_annotations
from tests.refusals import refuses
from tests.unit.ablation_tools import failing_train, fake_train, write_world
from tests.unit.run_tools import write_run

CONFIG = AblationOptions(config="base.toml", method="disnet.toml")
CELLS = [f"{row}/seed-{seed}" for row in ("full", "full-refined", "plain") for seed in (0, 1)]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AblationPlan:
    found = load_plan(str(write_world(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are written without a method; their folders are listed."""
    folders: list[str] = []

    def run(spec: Any, source: Any, out: Path, protocol: Any, execution: Any, **how: Any) -> Any:
        if not (out / "run.json").exists():
            folders.append(out.as_posix())
            own = {"name": spec.name, "options": dict(spec.options), "card": dict(spec.card)}
            data = {"name": source.name, "content_hash": source.content_hash()}
            write_run(out, [[0.95] * 20] * 3, method=own, dataset=data)
        return read_run(out)

    monkeypatch.setattr(ablation, "run_benchmark", run)
    return folders


def go(plan: AblationPlan, options: AblationOptions = CONFIG, train: Any = fake_train, **how: Any) -> list[str]:
    """Carry it out; what it said."""
    said: list[str] = []
    ablate(plan, Path("out"), replace(options, **how), train=train, say=said.append)
    return said


def calls() -> dict[str, int]:
    files = sorted(Path("out/two").glob("*/*/training/calls"))
    return {"/".join(path.parts[2:4]): len(path.read_text().splitlines()) for path in files}


def test_what_lies_where_and_is_done_once(plan: AblationPlan, measured: list[str]) -> None:
    said = go(plan)
    assert set(measured) == {f"out/two/{cell}/runs/DATA" for cell in CELLS}
    assert calls() == dict.fromkeys(["full/seed-0", "full/seed-1", "plain/seed-0", "plain/seed-1"], 1)
    assert said[:2] == [
        "plain, seed 0: trained for 2 steps of 32 examples of the training base",
        "plain, seed 0, DATA: 3 samples, 60 clicks",
    ]
    record = read_record(Path("out/two/full-refined/seed-1"))
    assert (record.row, record.seed) == ("full-refined", 1)
    assert record.method["refine_first"] and record.method["mca"]
    assert record.training["warmup_steps"] == 1, "what all rows share"
    assert read_record(Path("out/two/plain/seed-0")).method["mca"] is False
    options = read_run(Path("out/two/full-refined/seed-1/runs/DATA")).record.method.options
    assert options["checkpoint"] == "out/two/full/seed-1/training/disnet.safetensors"
    files = {path.name: path.read_bytes() for path in Path("out/two/report").iterdir()}
    assert sorted(files) == ["rows-two.csv", "signs-two.csv", "signs-two.md"]
    assert go(plan) == [f"{cell.replace('/seed-', ', seed ')}, DATA: 3 samples, 60 clicks" for cell in
                        ("plain/seed-0", "plain/seed-1", "full/seed-0", "full-refined/seed-0", "full/seed-1",
                         "full-refined/seed-1")]  # fmt: skip
    assert len(measured) == 6
    assert set(calls().values()) == {1}
    assert files == {path.name: path.read_bytes() for path in Path("out/two/report").iterdir()}


def test_what_to_do_with_earlier_results(plan: AblationPlan, measured: list[str]) -> None:
    one = replace(CONFIG, rows=("plain",), seeds=(0,))
    go(plan, one)
    refuses(r"^out/two/plain/seed-0: there are results already; name another --out$", go, plan, one, existing="fail")
    other = replace(one, steps=3)
    refuses(r"its row was made with other settings \(training\.steps: 2, now 3\)", go, plan, other)
    go(plan, other, existing="overwrite")
    assert len(measured) == 2
    assert read_record(Path("out/two/plain/seed-0")).training["steps"] == 3
    manifest = Path("shards/manifest.json")
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "00'))
    refuses(r"made with other settings \(shards\.shards: ", go, plan, other)


def test_jobs_change_nothing(plan: AblationPlan) -> None:
    """With a real benchmark; `Reads` has another radius for each row and seed."""
    rows = []
    for jobs in (1, 2):
        said = go(plan, replace(CONFIG, rows=("full",)), jobs=jobs, limit=1)
        assert sorted(said)[:2] == [
            "full, seed 0, DATA: 1 sample, 20 clicks",
            "full, seed 0: trained for 2 steps of 32 examples of the training base",
        ]
        folders = sorted(Path("out/two").glob("*/*/runs/DATA"))
        rows.append([read_run(folder).rows().drop_columns(list(SECONDS)).to_pylist() for folder in folders])
        Path("out").rename(f"out-{jobs}")
    assert rows[0] == rows[1]
    assert rows[0][0] != rows[0][1]


def test_a_job_that_ends(plan: AblationPlan) -> None:
    with pytest.raises(InputError, match=r"^full, seed [12]: 3 times, .*\(exit code 9\) \(out of memory\?\); run"):
        go(plan, replace(CONFIG, rows=("full",), seeds=(1, 2)), train=failing_train, jobs=2)


def test_what_cannot_be_begun(plan: AblationPlan, measured: list[str]) -> None:
    shards = replace(plan.rows[1], shards=(ablation.RowShards("none", recipe="containment", coco="c.json"),))
    for other, options, words in (
        (plan, {"rows": ("ful",)}, "two: unknown row 'ful'"),
        (plan, {"config": "bas"}, "unknown training 'bas'"),
        (plan, {"changes": ("stepz=1",)}, "--set stepz=1"),
        (plan, {"datasets": chosen_datasets(plan, ["grabcat"], ())}, "unknown dataset 'grabcat'"),
        (replace(plan, rows=(shards,), contrasts=()), {}, "none: .*sample containment --coco c.json --out none"),
    ):
        refuses(f"^{words}", go, other, **options)
    assert not Path("out").exists(), "all is checked before anything is done"
    assert not measured


def test_the_designs_are_trained_as_their_trainings_say_and_measured_by_their_cards() -> None:
    plan = load_plan("designs")
    for row in plan.rows:
        own = plan.row(row.trained_as) if row.trained_as else row
        training = load_training("disnet-small", (*plan.set, *own.set))
        if own.name == "disnet":
            assert not own.set and not own.card
            continue
        alone = load_training(f"design-{own.name}", plan.set)
        assert training == replace(alone, name=training.name, description=training.description)
        assert row.card == f"{row.name}-design"
        given = [f"{name}={value}" for name, value in described(training).items()]
        assert method_spec(row.card, [*given, *row.method]).options["design"] == own.name
    assert {row.name for row in plan.rows} == {"disnet", "dos-gc", "ia-sa", *DESIGNS}


def test_missing_shards_are_made(plan: AblationPlan, measured: list[str]) -> None:
    write_annotations(Path("c.json"), [annotation(1), annotation(2)])
    row = replace(plan.rows[1], shards=(ablation.RowShards("made", "DATA", recipe="containment", coco="c.json"),))
    go(replace(plan, rows=(row,), contrasts=(), seeds=(0,)), make_shards=True)
    assert json.loads(Path("made/manifest.json").read_text())["recipe"]["name"] == "containment"
    assert list(read_record(Path("out/two/full/seed-0")).shards) == ["made"]


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_the_rows_are_the_papers(name: str) -> None:
    """Every printed row is trained, as what it is printed as; a contrast changes one printed thing."""
    plan = load_plan(name)
    definition = read_definition(PaperTable, plan.table)
    printed = definition.rows
    missing = set(printed) - {row.paper for row in plan.rows}
    assert missing == ({"SBD Proximity"} if name == "table4" else set()), "SBD is another dataset, not another sampling"
    for row in plan.rows:
        training = load_training("disnet-small", (*plan.set, *row.set))
        found = described(training)
        wanted = dict(definition.pattern(row.paper).options) if row.paper else {}
        if name == "table3":
            del wanted["sampling"]  # the small network's sets are those of its training
        assert all(
            found[option] in (values if isinstance(values, list) else [values]) for option, values in wanted.items()
        ), row.name
        assert training.steps >= plan.steps
    for contrast in plan.contrasts:
        before, after = (plan.row(row) for row in (contrast.before, contrast.after))
        if before.paper and after.paper:
            labels = [definition.printed(row.paper).labels for row in (before, after)]
            assert sum(labels[0][key] != labels[1][key] for key in labels[0]) == 1, contrast.name


WRONG_PLANS = [
    ('name = "plain"', 'name = "A b"', "repeated name 'A b'"),
    ('name = "full"', 'name = "plain"', "repeated name 'plain'"),
    ('before = "plain"', 'before = "plan"', "unknown row 'plan'"),
    ('trained_as = "full"', 'trained_as = "full-refined"', "a row that is itself trained"),
    ("steps = 2", "steps = 0", "steps = 0"),
    ("steps = 2", "step = 2", "did you mean 'steps'"),
    ('method = ["refine', 'set = ["a=1"]\nmethod = ["refine', "leave out set and"),
]


@pytest.mark.parametrize(("found", "instead", "words"), WRONG_PLANS)
def test_a_wrong_plan_is_named(tmp_path: Path, found: str, instead: str, words: str) -> None:
    path = write_world(tmp_path)
    path.write_text(path.read_text().replace(found, instead))
    said = refuses(words, lambda: load_plan(str(path)))
    assert str(path) in said


def command(*arguments: str) -> str:
    """The command's output, or the sentence of its error."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command()(cli_train.ablate)
    done = CliRunner().invoke(app, ["ablate", *arguments], env={"DISBENCH_DATA": ""})
    return f"error: {done.exception}" if isinstance(done.exception, InputError) else done.output


def test_the_command(plan: AblationPlan, measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "ablate", lambda *given, **how: seen.append((given, how)) or ablation.Report((), ()))
    seen: list[Any] = []
    options = "--config base.toml --steps 3 --rows full --seeds 4 --set clip=2 --every DATA=2 --limit 5 --stop-at 0"
    command("two.toml", *options.split(), "--jobs", "2", "--device", "cuda", "--out", "o")
    ((given, _),) = seen
    assert given[:2] == (plan, Path("o"))
    found = given[2]
    chosen = ("base.toml", ("clip=2",), 3, ("full",), (4,), chosen_datasets(plan, (), ["DATA=2"]))
    assert (found.config, found.changes, found.steps, found.rows, found.seeds, found.datasets) == chosen
    assert (found.stop_at, found.limit, found.device, found.jobs) == (None, 5, "cuda", 2)
    assert [line.split()[0] for line in command("--list").splitlines()] == definitions.names(
        "baselines/configs/ablations"
    )
    for arguments, words in (
        (["tabel5"], "unknown ablation 'tabel5'; did you mean 'table5'"),
        (["two.toml", "--every", "DATA"], "--every DATA: "),
        (["two.toml", "--every", "davis=2"], "--every: unknown dataset 'davis'"),
        (["two.toml", "--report", "--out", "none"], "none/two: "),
    ):
        assert command(*arguments).startswith(f"error: {words}")
