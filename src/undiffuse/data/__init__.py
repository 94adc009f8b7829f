"""Data sets: readers and writers.

    sources                              names, paths and arrays -> Dataset
    tables, delimited_text, arrays, images   files
    huggingface, hf_streaming            Hugging Face data sets and streams
    toys                                 built-in data
    dataset, lazy, validation            samples with labels and conditions, rows on the disk, checks
    writers                              atomic files
"""

from undiffuse.data.arrays import from_arrays
from undiffuse.data.dataset import Dataset, conditioned, describe
from undiffuse.data.huggingface import from_datasets
from undiffuse.data.sources import NAMES, Source, open_data
from undiffuse.data.toys import distance_to_curve
from undiffuse.data.writers import save_samples
from undiffuse.transforms.base import Transform

__all__ = ["NAMES", "Dataset", "Source", "Transform", "conditioned", "describe", "distance_to_curve", "from_arrays",
           "from_datasets", "open_data", "save_samples"]
