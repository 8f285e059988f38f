"""Read pairs from files and data sets in every usual format, and write them."""

from tiewise.data.formats.hub import fetch_files, is_hub_path
from tiewise.data.formats.joining import align_pairs, name_files, read_many
from tiewise.data.formats.reading import read_chunks, read_pairs
from tiewise.data.formats.records import FORMATS
from tiewise.data.formats.writing import write_pairs, write_preference, write_submission

__all__ = [
    "FORMATS",
    "align_pairs",
    "fetch_files",
    "is_hub_path",
    "name_files",
    "read_chunks",
    "read_many",
    "read_pairs",
    "write_pairs",
    "write_preference",
    "write_submission",
]
