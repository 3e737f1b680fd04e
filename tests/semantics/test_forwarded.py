"""RFC 7239 (Forwarded) and RFC 8586 (CDN-Loop)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.forwarded import cdn_loop, forwarded_client, is_loop, last_forwarded
from cdn.semantics.message import Fields


def _told(*values: str) -> dict[str, str]:
    return last_forwarded(Fields([("Forwarded", value) for value in values]))


@pytest.mark.parametrize(
    ("values", "element"),
    [
        ([], {}),
        (["for=192.0.2.43"], {"for": "192.0.2.43"}),
        (["For=1.2.3.4;Proto=https"], {"for": "1.2.3.4", "proto": "https"}),
        (["for=1.2.3.4; proto=https ;by=x"], {"for": "1.2.3.4", "proto": "https", "by": "x"}),
        (["for=1.1.1.1, for=2.2.2.2"], {"for": "2.2.2.2"}),
        (["for=1.1.1.1", "for=2.2.2.2;host=a"], {"for": "2.2.2.2", "host": "a"}),
        (['for="[2001:db8::1]:4711"'], {"for": "[2001:db8::1]:4711"}),
        (['host="a,for=9.9.9.9"'], {"host": "a,for=9.9.9.9"}),
        (['host="a\\"b\\\\"'], {"host": 'a"b\\'}),
        (['for=1.1.1.1;host="a, b", for=2.2.2.2'], {"for": "2.2.2.2"}),
        (['for=""'], {"for": ""}),
        (["for=1.1.1.1 proto=https"], {}),
        (["junk"], {}),
        (['for="x'], {}),
        (["1.2.3.4"], {}),
    ],
)
def test_the_last_element_counts(values, element):
    """RFC 7239 §4: the nearest proxy's element comes last."""
    assert _told(*values) == element


@given(st.text(max_size=60) | st.text(alphabet='for=";,\\ []:a', max_size=60))
def test_no_text_raises(value):
    _told(value)


@pytest.mark.parametrize("value", [" " * 32_768, "a" * 32_768, 'a="' + "x" * 32_768,
                                   "a=b;" * 8_000, 'a="\\' * 8_000, "for= " * 6_000])  # fmt: skip
def test_hostile_values_cost_little(value):
    began = time.process_time()
    _told(value)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("node", "address"),
    [("192.0.2.43", "192.0.2.43"), ("192.0.2.43:47011", "192.0.2.43"),
     ("[2001:db8::1]", "2001:db8::1"),
     ("[2001:db8::1]:80", "2001:db8::1"), ("unknown", "unknown"), ("_gazonk", "_gazonk"), ("", "")],
)  # fmt: skip
def test_node_without_its_port(node, address):
    """RFC 7239 §6."""
    assert forwarded_client(node) == address


def test_each_node_adds_itself():
    """RFC 8586 §2."""
    assert cdn_loop(Fields(), "edge-a") == ("CDN-Loop", "iij-cdn;node=edge-a")
    fields = Fields([("CDN-Loop", "other"), ("CDN-Loop", "iij-cdn;node=x")])
    assert cdn_loop(fields, "s")[1] == "other, iij-cdn;node=x, iij-cdn;node=s"


@pytest.mark.parametrize(
    ("value", "loop"),
    [
        (None, False),
        ("other;node=edge-a", False),
        ("iij-cdn;node=edge-b", False),
        ("iij-cdn;node=edge-a", True),
        ("IIJ-CDN ; Node=EDGE-A ;x=1", True),
        ("iij-cdn;node=edge-ab", False),
        ("iij-cdn;x=edge-a", False),
        ("iij-cdn, x, iij-cdn;node=b, iij-cdn", False),
        ("iij-cdn, iij-cdn;node=b, x, iij-cdn, iij-cdn", True),
        ("x, x, x, x, x", False),
    ],
)
def test_a_loop_is_ones_own_name_or_four_of_ours(value, loop):
    fields = Fields([] if value is None else [("CDN-Loop", value)])
    assert is_loop(fields, "edge-a") is loop
