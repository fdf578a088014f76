"""The order of files: the dearest begin, so that no long one is left alone at the end."""


def pytest_collection_modifyitems(items):
    """A file of ten seconds or more says what it takes in the release build, about: COST_S. The order within a file stays."""
    items.sort(key=lambda item: -getattr(item.module, "COST_S", 0))
