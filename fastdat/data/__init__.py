"""Real images: readers of publishers' layouts, checked downloads, packed stores and the training sampler."""

from fastdat.data.cifar10 import load_cifar10
from fastdat.data.download import Archive, Files, fetch
from fastdat.data.image_set import ImageSet
from fastdat.data.load import load_split
from fastdat.data.packing import Packed, pack
from fastdat.data.registry import DATASETS
from fastdat.data.sampler import TrainSampler
from fastdat.data.store import Store
from fastdat.util.errors import DataError

__all__ = [
    "DATASETS",
    "Archive",
    "DataError",
    "Files",
    "ImageSet",
    "Packed",
    "Store",
    "TrainSampler",
    "fetch",
    "load_cifar10",
    "load_split",
    "pack",
]
