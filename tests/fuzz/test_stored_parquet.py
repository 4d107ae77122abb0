"""Parquet whose end is whole and whose pages are not: texts that no dictionary has are refused, not looked for."""

from __future__ import annotations

import pyarrow as pa
import pytest

from disbench.parquet import weigh


@pytest.mark.parametrize("index", [1, 2, 2**30])
def test_texts_that_their_dictionary_does_not_have(index: int) -> None:
    whole = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["a"]))
    broken = pa.DictionaryArray.from_arrays(pa.array([0, index], pa.int32()), pa.array(["a"]), safe=False)
    weigh(pa.table({"x": whole}))
    with pytest.raises(ValueError, match="dictionary does not have"):
        weigh(pa.table({"x": broken}))
    lists = pa.ListArray.from_arrays([0, 2], broken)
    with pytest.raises(ValueError, match="dictionary does not have"):
        weigh(pa.table({"x": lists}))
