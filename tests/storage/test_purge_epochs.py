"""Purges by tag, without touching what they purge."""

from cdn.storage.purge_epochs import PurgeEpochs


def test_what_was_asked_for_before_a_purge_is_outdated():
    epochs = PurgeEpochs()
    before = epochs.now
    epochs.purge(["news"])
    assert epochs.outdated(["front", "news"], before)
    assert not epochs.outdated(["front"], before)
    assert not epochs.outdated([], before)
    assert not epochs.outdated(["news"], epochs.now)


def test_each_purge_counts():
    epochs = PurgeEpochs()
    epochs.purge(["news"])
    between = epochs.now
    epochs.purge(["films"])
    assert not epochs.outdated(["news"], between)
    epochs.purge(["news"])
    assert epochs.outdated(["news"], between)


def test_a_forgotten_tag_outdates_rather_too_much_than_too_little():
    epochs = PurgeEpochs(most_tags=2)
    before = epochs.now
    epochs.purge(["a", "b", "c"])
    assert epochs.outdated(["a"], before)
    assert epochs.outdated(["never purged"], before)
    assert not epochs.outdated(["never purged"], epochs.now)
