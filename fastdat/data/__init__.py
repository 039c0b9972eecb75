"""Real images: readers of publishers' layouts, a checked download, and the training sampler."""

from fastdat.data.cifar10 import load_cifar10
from fastdat.data.download import Archive, fetch
from fastdat.data.errors import DataError
from fastdat.data.images import ImageSet
from fastdat.data.sampler import TrainSampler

__all__ = ["Archive", "DataError", "ImageSet", "TrainSampler", "fetch", "load_cifar10"]
