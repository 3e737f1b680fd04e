"""The reference is measured before all else and after it."""


def pytest_collection_modifyitems(items) -> None:
    def turn(item) -> int:
        return {"test_reference[first]": 0, "test_reference[last]": 2}.get(item.name, 1)

    items.sort(key=turn)
