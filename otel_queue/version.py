"""The package's version, read by the build and by the self metrics."""

__version__ = "0.3.0"
