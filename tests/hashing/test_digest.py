"""Names of cache keys are 16 bytes, and the same on every machine."""

from cdn.hashing.digest import key_digest


def test_a_digest_is_xxh3_128_in_its_canonical_byte_order():
    # The published value of XXH3_128bits("") with seed 0: stores outlive processes and machines.
    assert key_digest(b"").hex() == "99aa06d3014798d86001c324468d497f"


def test_neighbouring_keys_have_different_digests():
    digests = {key_digest(b"http://example.com/%d" % number) for number in range(1000)}
    assert len(digests) == 1000
    assert {len(digest) for digest in digests} == {16}
