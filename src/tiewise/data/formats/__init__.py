"""Files and data sets of every usual spelling, read to the pairs table and written from it.

``sources`` gets records out of a file or a table and ``cells`` values out of a record; each family
of formats turns a record into rows, ``reading`` and ``joining`` put them together, and ``writing``
goes the other way. A record either becomes rows, is refused by name, or is mended and counted: no
row is lost, and no label guessed, in silence.
"""

from tiewise.data.formats.hub import is_hub_path
from tiewise.data.formats.joining import align_pairs, join_pairs, name_files, read_many
from tiewise.data.formats.reading import FORMATS, read_chunks, read_pairs
from tiewise.data.formats.sources import fetch_files
from tiewise.data.formats.writing import write_pairs, write_preference, write_submission

__all__ = [
    "FORMATS",
    "align_pairs",
    "fetch_files",
    "is_hub_path",
    "join_pairs",
    "name_files",
    "read_chunks",
    "read_many",
    "read_pairs",
    "write_pairs",
    "write_preference",
    "write_submission",
]
