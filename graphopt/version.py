"""The version, as the installed distribution says it."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("graphopt")
except PackageNotFoundError:  # a source tree that is on the path but not installed
    VERSION = "0+unknown"
