"""How large outside data may be (docs/security.md).

A few bytes can claim, or expand into, any amount of memory. Each bound is far above what real data has, and small
enough that a machine of a few gigabytes survives the worst file within it.
"""

from __future__ import annotations

from typing import Final

# Images and masks.
# Pixels of an image (11,585 x 11,585): Pillow refuses above 178,956,970; pycocotools counts pixels, and coordinates
# times 5, in 32 bits.
MAX_PIXELS: Final = 2**27
# Length of all outlines of an object together, in fifths of a pixel: pycocotools takes 20 bytes for each, and crashes
# when there is no memory. An image of the largest size is 46,000 pixels around.
MAX_OUTLINE: Final = 2**24
MAX_MASK_BYTES: Final = 2**28  # of all run lengths of a scene together; one of COCO or LVIS has less than a million
MAX_OBJECTS: Final = 2**13  # of an image whose masks are compared in pairs, 40 bytes each; SA-1B's have hundreds
MAX_DEPTH: Final = 64  # levels of a tree that a dataset declares; ADE20K has parts of parts of parts
MAX_FILE_OBJECTS: Final = 2**10  # of a file of Pascal-Part, which has 2.5 an image
MAX_OBJECT_PARTS: Final = 2**8  # of an object of Pascal-Part, which has 7 an object
MAX_SHOWN_PIXELS: Final = 2**25  # of an image in the demo: methods hold several floating-point maps of that size
MAX_UPLOAD_BYTES: Final = 2**25  # of a file that is handed to the demo's page

# Text files.
MAX_RECORD_BYTES: Final = 2**24  # of a record of JSON, which takes up to 60 times as much; LVIS: a few hundred thousand
MAX_ARRAYS: Final = 1000  # at the top level of an annotation file, which has three to five
MAX_LIST_BYTES: Final = 2**24  # of a list of names, such as a split: more than a million names
MAX_MATLAB_BYTES: Final = 2**28  # of a MATLAB file, and of each variable decompressed; SBD's have less than a million
MAX_COUNT: Final = 2**53  # counts and sizes in TOML and JSON: a float holds them exactly
MAX_NESTING: Final = 60  # lists and tables in each other in TOML and JSON: functions that call themselves read them
MAX_NAME: Final = 1000  # characters of a name from elsewhere: of a sample, a user, an image's path
MAX_FILE_NAME: Final = 200  # characters of a name that becomes a file's; systems take 255 bytes with the ending

# Archives.
MAX_UNPACKED_RATIO: Final = 100  # times its own size that an archive may unpack to ...
MAX_UNPACKED_BYTES: Final = 2**26  # ... or bytes, if that is more
MAX_FOLDERS: Final = 64  # in each other, in a path that an archive or a card names

# Parquet.
MAX_FOOTER_BYTES: Final = 2**26
MAX_COLUMNS: Final = 1000  # nodes of a schema: the library aborts on a tree that is deeper than its stack
MAX_GROUP_VALUES: Final = 2**23  # of all columns of a row group
MAX_TEXT_BYTES: Final = 2**28  # of texts and masks that are written out at once
MAX_ROWS: Final = 2**40  # rows or bytes that a manifest of shards may state

# Runs.
MAX_CANDIDATES: Final = 1000  # masks of one answer of a method
MAX_IOUS: Final = 2**27  # samples times clicks of a run, when failed samples are filled up: 1 GiB of numbers
MAX_ANSWERS: Final = 2**24  # first clicks of all sets of a run together
MAX_RECORDED_CLICKS: Final = 2**22  # of a file; a hundred people on a thousand objects make a tenth of it
