"""Published numbers: read whole, compared, with remarks."""

from __future__ import annotations

import pytest

from disbench.core.errors import InputError
from disbench.io import definitions
from disbench.reports.paper.definitions import Published, published_lines, read_published
from tests.refusals import refuses


@pytest.fixture(scope="module")
def published() -> Published:
    return read_published()


def test_columns_and_the_cards_of_their_datasets(published: Published) -> None:
    measure = published.measure("sbd_nof90")
    assert (measure.dataset.title, measure.dataset.card, measure.title) == ("SBD", "sbd-val", "NoF@90")
    assert published.title("grabcut_noc85") == "GrabCut NoC@85"
    for wrong in ("sbd_iou90", "dabis_noc90"):
        with pytest.raises(InputError):
            published.measure(wrong)
    card = definitions.load(definitions.find("datasets", "davis"))
    assert published.dataset("davis").content_hash == card["content_hash"]
    for dataset in published.sources.datasets.values():
        assert definitions.find("datasets", dataset.card).is_file()


def test_rows_have_labels_and_sources_and_are_compared_one_way(published: Published) -> None:
    row = published.find({"file": "table1.csv", "method": "DISNet", "training_data": "SBD"})
    assert row.numbers["berkeley_noc85"] == "1.39"
    refuses(r"table1\.csv", published.find, {"file": "table1.csv", "method": "DISNet"})
    assert all(row.source and row.method for row in published.rows)
    assert {row.source for row in published.rows if row.file.startswith("table")} == {
        f"the paper's Table {number}" for number in range(1, 6)
    }
    assert len({row.method for row in published.rows if row.numbers}) == 20
    theirs = [row for row in published.rows if row.others]
    assert (len(theirs), {row.file for row in theirs}) == (77, {"rclicks.csv"})
    mixed = published.find({"file": "table1.csv", "method": "CDNet"})
    sentences = [published.sentence(mixed, *other) for other in published.elsewhere(mixed)]
    assert sentences[0].startswith("the ClickSEG repository's README prints for ResNet-34: GrabCut NoC@85 1.86,")
    assert sentences[1].startswith("the ClickSEG repository's README prints for ResNet-34, C+L: GrabCut NoC@85 1.40,")
    own = published.find({"file": "peers_own_tables.csv", "method": "CDNet", "training_data": "SBD"})
    assert published.elsewhere(own) == []


def test_the_list_of_a_method() -> None:
    lines = published_lines("f-brs b")
    assert lines[0] == "f-BRS-B, training data SBD, backbone ResNet-101: the paper's Table 1"
    assert "    Berkeley: NoC@85 not printed, NoC@90 4.57" in lines
    for name, start, count in (
        ("f-brs b", "    differs: the f-BRS repository's README prints GrabCut NoC@90 2.68,", 1),
        ("interformer", "    remark: This row repeats that of SimpleClick", 1),
        ("FCFI", "    remark on DAVIS NoC@90, SBD NoC@90: ", 1),
        ("DISNet", "remark on the paper's Table ", 4),
        ("GPCIS", "    Sample NoC20@90 mean 3.87, Sample NoC20@90 std 0.79, dSB NoC % 19.55, dGR NoC % 56.43", 1),
    ):
        assert sum(line.startswith(start) for line in published_lines(name)) == count
    refuses("'RITMO'; did you mean 'RITM'", published_lines, "RITMO")
