"""Replacement policies as one would explain them: lists, no cleverness, everything looked at.

`RamModel` is the MemoryStore's default too, so the store's own tests play against it.
"""

from cdn.storage.eviction.ghosts import Ghosts


class LruModel:
    def __init__(self, budget):
        self.budget = budget
        self.order = []  # [key, size], coldest first

    @property
    def sizes(self):
        return dict(self.order)

    def touch(self, key):
        self.order.sort(key=lambda item: item[0] == key)

    def enter(self, key, size):
        self.order.append((key, size))

    def evict(self):
        return self.order.pop(0)[0]

    def remove(self, key):
        self.order = [item for item in self.order if item[0] != key]


class SieveModel:
    """The hand is the key that it points to, None for the oldest."""

    def __init__(self, budget):
        self.budget = budget
        self.order = []  # [key, size, used], oldest first
        self.hand = None

    @property
    def sizes(self):
        return {key: size for key, size, _ in self.order}

    def at(self, key):
        return next((n for n, item in enumerate(self.order) if item[0] == key), 0)

    def touch(self, key):
        self.order[self.at(key)][2] = True

    def enter(self, key, size):
        self.order.append([key, size, False])

    def evict(self):
        at = self.at(self.hand)
        while self.order[at][2]:
            self.order[at][2] = False
            at = (at + 1) % len(self.order)
        key = self.order[at][0]
        self.hand = key
        self.remove(key)
        return key

    def remove(self, key):
        at = self.at(key)
        del self.order[at]
        if self.hand == key:
            self.hand = self.order[at][0] if at < len(self.order) else None


class S3FifoModel:
    def __init__(self, budget):
        self.budget = budget
        self.small, self.main = [], []  # [key, size, uses], oldest first
        self.ghosts = Ghosts(budget)

    @property
    def sizes(self):
        return {key: size for key, size, _ in self.small + self.main}

    def touch(self, key):
        for item in self.small + self.main:
            if item[0] == key:
                item[2] = min(item[2] + 1, 3)

    def enter(self, key, size):
        (self.main if self.ghosts.recall(key) else self.small).append([key, size, 0])

    def evict(self):
        if sum(item[1] for item in self.small) > self.budget // 10 or not self.main:
            key, size, uses = self.small.pop(0)
            if uses < 2:
                self.ghosts.remember(key, size, 1)
                return key
            self.main.append([key, size, 0])
            return self.evict()
        key, size, uses = self.main.pop(0)
        if not uses:
            return key
        self.main.append([key, size, uses - 1])
        return self.evict()

    def remove(self, key):
        self.ghosts.remember(key, self.sizes[key], 1)
        self.small = [item for item in self.small if item[0] != key]
        self.main = [item for item in self.main if item[0] != key]


class GdsfModel:
    alpha, first_use, remembers = 0.0, 1.0, False

    def __init__(self, budget):
        self.budget = budget
        self.clock = 0.0
        self.items = {}  # key: [priority, size, uses], in the order of entering
        self.ghosts = Ghosts(2 * budget)

    @property
    def sizes(self):
        return {key: size for key, (_, size, _) in self.items.items()}

    def priority(self, size, uses):
        worth = self.first_use if uses == 1 else uses
        return self.clock + worth * max(size, 1) ** (self.alpha - 1)

    def touch(self, key, uses=1):
        _, size, before = self.items[key]
        uses = min(before + uses, 63)
        self.items[key] = [self.priority(size, uses), size, uses]

    def enter(self, key, size):
        uses = min(1 + (self.ghosts.recall(key) if self.remembers else 0), 63)
        self.items[key] = [self.priority(size, uses), size, uses]

    def evict(self):
        key = min(self.items, key=lambda key: self.items[key][0])  # the first of equals
        self.clock = self.items[key][0]
        self.remove(key)
        return key

    def remove(self, key):
        _, size, uses = self.items.pop(key)
        self.ghosts.remember(key, size, uses)


class RamModel(GdsfModel):
    alpha, first_use, remembers = 0.5, 0.3, True
