"""How large outside data may be (docs/security.md).

A few bytes can claim, or expand into, any amount of memory. Each bound is far above what real data has, and small
enough that a machine of a few gigabytes survives the worst file within it.
"""

from __future__ import annotations

from typing import Final

MAX_PIXELS: Final = 2**27
"""Pixels of an image (11,585 x 11,585). Pillow's own guard refuses above 178,956,970, and pycocotools counts
pixels, and coordinates times 5, in 32 bits."""

MAX_OUTLINE: Final = 2**24
"""Length of all outlines of an object together, in fifths of a pixel: pycocotools walks along an outline in such
steps, takes 20 bytes a step, and crashes when there is no memory. 3.3 million pixels; an image of the largest
size is 46,000 pixels around."""

MAX_MASK_BYTES: Final = 2**28
"""Bytes of all run lengths of a scene together. A scene of COCO or LVIS has less than a million."""

MAX_OBJECTS: Final = 2**13
"""Objects of an image whose masks are compared in pairs, which takes 40 bytes a pair. SA-1B's images have hundreds."""

MAX_DEPTH: Final = 64
"""Levels of a tree that a dataset declares: a set has a mask a level. ADE20K has parts of parts of parts."""

MAX_RECORD_BYTES: Final = 2**24
"""Bytes of a record of JSON, and of everything outside the arrays; parsed, they take up to 60 times as much.
The largest record of LVIS has a few hundred thousand."""

MAX_ARRAYS: Final = 1000
"""Arrays at the top level of an annotation file, which has three to five."""

MAX_LIST_BYTES: Final = 2**24
"""Bytes of a list of names, such as a split: more than a million names."""

MAX_MATLAB_BYTES: Final = 2**28
"""Bytes of a MATLAB file, and of each variable once it is decompressed. SBD's have less than a million."""

MAX_FILE_OBJECTS: Final = 2**10
"""Objects of a file of Pascal-Part. The dataset has 2.5 an image."""

MAX_OBJECT_PARTS: Final = 2**8
"""Parts of an object of Pascal-Part. The dataset has 7 an object."""

MAX_RECORDED_CLICKS: Final = 2**22
"""Clicks of a file of recorded clicks. A study of a hundred people on a thousand objects has a tenth of it."""

MAX_SHOWN_PIXELS: Final = 2**25
"""Pixels of an image in the demo: methods hold several floating-point maps of that size, and a page must show it."""

MAX_UPLOAD_BYTES: Final = 2**25
"""Bytes of a file that is handed to the demo's page."""

MAX_UNPACKED_RATIO: Final = 100
"""Times its own size that an archive may unpack to ..."""

MAX_UNPACKED_BYTES: Final = 2**26
"""... or bytes, if that is more."""

MAX_FOLDERS: Final = 64
"""Folders in each other, in a path that an archive or a card names."""

MAX_FOOTER_BYTES: Final = 2**26
"""Bytes of the footer of a Parquet file."""

MAX_COLUMNS: Final = 1000
"""Nodes of the schema of a Parquet file: the library aborts on a tree that is deeper than its stack."""

MAX_GROUP_VALUES: Final = 2**23
"""Values of all columns of a row group of Parquet."""

MAX_TEXT_BYTES: Final = 2**28
"""Bytes of texts and masks of Parquet that are written out at once."""

MAX_COUNT: Final = 2**53
"""Of counts and sizes in TOML and JSON: a float holds them exactly, and so does every column and library."""

MAX_NESTING: Final = 60
"""Lists and tables in each other in TOML and JSON: functions that call themselves go through them later."""

MAX_NAME: Final = 1000
"""Characters of a name from elsewhere: of a sample, a user, an image's path."""

MAX_FILE_NAME: Final = 200
"""Characters of a name from elsewhere that becomes a file's; systems take 255 bytes with the ending."""

MAX_ROWS: Final = 2**40
"""Rows or bytes that a manifest of shards may state."""

MAX_CANDIDATES: Final = 1000
"""Candidate masks of one answer of a method."""

MAX_IOUS: Final = 2**27
"""Samples times clicks of a run, when failed samples are filled up: 1 GiB of numbers."""

MAX_ANSWERS: Final = 2**24
"""First clicks of all sets of a run together."""
