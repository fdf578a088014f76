# What flatc makes of proto/bantam.fbs has no types: codec.py gives its values theirs.
from typing import Any

def __getattr__(name: str) -> Any: ...
