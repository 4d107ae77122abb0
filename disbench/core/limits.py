"""Upper bounds on the size of untrusted data (docs/security.md).

A few bytes can claim, or expand into, any amount of memory. Each bound is far above real data, yet low enough that a
machine with a few gigabytes survives the worst file within it.
"""

from __future__ import annotations

from typing import Final

# Images and masks.
# Pixels of an image (11,585 x 11,585): Pillow refuses above 178,956,970; pycocotools counts pixels, and coordinates
# times 5, in 32 bits.
MAX_PIXELS: Final = 2**27
# Total length of an object's outlines, in fifths of a pixel: pycocotools takes 20 bytes for each, and crashes if memory
# runs out. The border of an image of the largest size is 46,000 pixels long.
MAX_OUTLINE: Final = 2**24
MAX_MASK_BYTES: Final = 2**28  # all run lengths of a scene together; a scene of COCO or LVIS has less than a million
MAX_OBJECTS: Final = 2**13  # objects of an image, compared in pairs of 40 bytes each; SA-1B has hundreds
MAX_DEPTH: Final = 64  # levels of a declared hierarchy; ADE20K has parts of parts of parts
MAX_FILE_OBJECTS: Final = 2**10  # objects in a Pascal-Part file, which has 2.5 on average
MAX_OBJECT_PARTS: Final = 2**8  # parts of a Pascal-Part object, which has 7 on average
MAX_SHOWN_PIXELS: Final = 2**25  # pixels of an image in the demo: methods hold several floating-point maps of that size
MAX_UPLOAD_BYTES: Final = 2**25  # a file uploaded to the demo

# Text files.
MAX_RECORD_BYTES: Final = 2**24  # a JSON record, up to 60 times as large in memory; LVIS: a few hundred thousand
MAX_ARRAYS: Final = 1000  # top-level arrays of an annotation file, which has three to five
MAX_LIST_BYTES: Final = 2**24  # a list of names, such as a split: more than a million names
MAX_MATLAB_BYTES: Final = 2**28  # a MATLAB file, and each of its variables decompressed; SBD: less than a million
MAX_COUNT: Final = 2**53  # counts and sizes in TOML and JSON: exact as floats
MAX_NESTING: Final = 60  # nested lists and tables in TOML and JSON, whose parsers are recursive
MAX_NAME: Final = 1000  # characters of an untrusted name: of a sample, a user, an image's path
MAX_FILE_NAME: Final = 200  # characters of a name used as a file name; systems allow 255 bytes with the extension

# Archives.
MAX_UNPACKED_RATIO: Final = 100  # an archive may unpack to this multiple of its size ...
MAX_UNPACKED_BYTES: Final = 2**26  # ... or to this size, whichever is larger
MAX_FOLDERS: Final = 64  # nested folders in a path from an archive or a card

# Parquet.
MAX_FOOTER_BYTES: Final = 2**26
MAX_COLUMNS: Final = 1000  # nodes of a schema: pyarrow aborts on a tree that overflows its stack
MAX_GROUP_VALUES: Final = 2**23  # values in all columns of a row group
MAX_TEXT_BYTES: Final = 2**28  # strings and masks decoded at once
MAX_ROWS: Final = 2**40  # rows or bytes claimed by a shard manifest

# Runs.
MAX_CANDIDATES: Final = 1000  # masks in one prediction
MAX_IOUS: Final = 2**27  # samples times clicks of a run, with failed samples filled up: 1 GiB of numbers
MAX_ANSWERS: Final = 2**24  # first clicks of all sets of a run together
MAX_RECORDED_CLICKS: Final = 2**22  # clicks in a file; a hundred people on a thousand objects make a tenth of it
