"""Data: one resolver for built-in sets and files, and the invertible transforms stored with a model."""

from undiffuse.data import transforms
from undiffuse.data.arrays import from_arrays
from undiffuse.data.conditions import conditioned
from undiffuse.data.dataset import Dataset, describe
from undiffuse.data.hub import from_datasets
from undiffuse.data.resolver import NAMES, Source, open_data
from undiffuse.data.toys import distance_to_curve
from undiffuse.data.transforms import Transform
from undiffuse.data.writers import save_samples

__all__ = ["NAMES", "Dataset", "Source", "Transform", "conditioned", "describe", "distance_to_curve", "from_arrays",
           "from_datasets", "open_data", "save_samples", "transforms"]
