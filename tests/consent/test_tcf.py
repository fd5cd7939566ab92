"""Consent strings: what they grant, what they refuse, and that no text does any harm (M12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.consent import gpp
from kiki_agent.consent.bits import Bits, Malformed
from kiki_agent.consent.tcf import Ask, Why, decode, judge
from kiki_agent.model import DAY, HOUR, Instant, parse_iso
from tests.consent import fuzz
from tests.consent.encoder import Tc, fibonacci, number, text_of
from tests.consent.encoder import gpp as gpp_text
from tests.consent.reference import says_yes

NOW = fuzz.NOW
MADE = fuzz.MADE
ASK = fuzz.ASK
GRANT = Tc(MADE, MADE)
PUBLISHED = (
    "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.IFoEUQQgAIQwgIwQABAEAAAAOIAACAIAAAAQAIAgEAACEAAAAAgAQBAAAAAAAGBA"
    "AgAAAAAAAFAAECAAAgAAQARAEQAAAAAJAAIAAgAAAYQEAAAQmAgBC3ZAYzUw"
)
"""The example of the IAB's own description of the format: global scope, purposes 1 to 3, vendors 2, 6 and 8."""


def why(tc: Tc, ask: Ask = ASK, now: Instant = NOW) -> Why:
    return judge(tc.text(), ask, now)


def test_the_published_example_reads_as_published() -> None:
    found = decode(PUBLISHED)
    assert found is not None
    assert found.created == parse_iso("2020-02-20T23:57:39.300Z")
    assert (found.cmp_id, found.vendor_list, found.policy, found.language) == (27, 15, 2, "EN")
    assert [each for each in range(1, 25) if found.purposes_consent >> (24 - each) & 1] == [1, 2, 3]
    assert [each for each in range(1, 100) if each in found.vendor_consent] == [2, 6, 8]
    assert [each for each in range(1, 100) if each in found.vendor_interest] == [2, 6, 8]
    assert found.disclosed is not None
    assert 2 in found.disclosed
    assert judge(PUBLISHED, Ask(2, (1, 2, 3)), Instant(found.created)) is Why.POLICY


@pytest.mark.parametrize("ranged", [False, True])
def test_what_is_granted_is_granted_in_both_encodings(ranged: bool) -> None:
    tc = replace(GRANT, ranged=ranged, publisher=True, allowed=(5,))
    assert why(tc) is Why.YES
    assert why(tc, Ask(10, (1, 2, 3, 4))) is Why.YES
    assert why(tc, Ask(800, (1,))) is Why.NO_CONSENT
    assert why(tc, Ask(801, (1,))) is Why.NOT_DISCLOSED
    assert why(tc, Ask(755, (1, 5))) is Why.NO_CONSENT
    assert why(tc, Ask(755, ())) is Why.NOT_ASKED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"policy": 3}, Why.POLICY),
        ({"policy": 6}, Why.POLICY),
        ({"service_specific": False}, Why.GLOBAL_SCOPE),
        ({"disclosed": None}, Why.NOT_DISCLOSED),
        ({"disclosed": (2,)}, Why.NOT_DISCLOSED),
        ({"disclosed": None, "policy": 4}, Why.NOT_DISCLOSED),
        ({"disclosed": (2,), "policy": 4}, Why.NOT_DISCLOSED),
        ({"policy": 4}, Why.YES),
        ({"updated": Instant(NOW + 2 * HOUR)}, Why.FUTURE),
        ({"updated": Instant(NOW + HOUR // 2)}, Why.YES),
        ({"created": Instant(NOW)}, Why.FUTURE),
        ({"created": Instant(NOW - 500 * DAY), "updated": Instant(NOW - 396 * DAY)}, Why.EXPIRED),
        ({"created": Instant(NOW - 500 * DAY), "updated": Instant(NOW - 395 * DAY)}, Why.YES),
        ({"purposes": (1, 4)}, Why.NO_CONSENT),
        ({"vendor_consent": (2, 10)}, Why.NO_CONSENT),
        ({"purpose_one_treatment": True}, Why.NO_CONSENT),
        ({"version": 1}, Why.MALFORMED),
        ({"cmp_id": 1}, Why.MALFORMED),
        ({"vendor_list": 0}, Why.MALFORMED),
        ({"language": "E\\"}, Why.MALFORMED),
        ({"tail": "0" * 24}, Why.MALFORMED),
        ({"tail": "1"}, Why.MALFORMED),
        ({"restrictions": ((3, 0, (755,)),)}, Why.RESTRICTED),
        ({"restrictions": ((3, 0, (754,)), (2, 0, (755,)))}, Why.YES),
        ({"restrictions": ((3, 1, (755,)),)}, Why.YES),
        ({"restrictions": ((3, 2, (755,)),)}, Why.RESTRICTED),
        ({"restrictions": ((3, 1, (755,)), (3, 2, (755,)))}, Why.RESTRICTED),
        ({"restrictions": ((3, 3, (755,)),)}, Why.MALFORMED),
        ({"restrictions": ((0, 1, (755,)),)}, Why.MALFORMED),
    ],
)
def test_every_condition_counts(change: dict[str, object], expected: Why) -> None:
    assert why(replace(GRANT, **change)) is expected  # type: ignore[arg-type]


def test_a_string_of_2_2_from_before_march_2026_needs_no_disclosure() -> None:
    last = parse_iso("2026-02-28T23:59:59.900Z")
    tc = Tc(last, last, policy=4, disclosed=None)
    assert why(tc) is Why.YES
    assert why(replace(tc, updated=Instant(last + 100_000))) is Why.NOT_DISCLOSED
    assert why(replace(tc, policy=5)) is Why.NOT_DISCLOSED


def test_legitimate_interest_holds_only_where_the_vendor_relies_on_it_and_the_framework_allows_it() -> None:
    tc = replace(GRANT, purposes=(1,), interests=(2, 3, 7), vendor_interest=(755,))
    assert why(tc, Ask(755, (2, 7), interests=(2, 7))) is Why.YES
    assert why(tc, Ask(755, (2, 7), interests=(2,))) is Why.NO_CONSENT
    assert why(tc, Ask(755, (3,), interests=(3,))) is Why.NO_CONSENT
    limited = replace(tc, restrictions=((7, 1, (755,)), (2, 2, (755,))))
    assert why(limited, Ask(755, (2,), interests=(2,))) is Why.YES
    assert why(limited, Ask(755, (7,), interests=(7,))) is Why.RESTRICTED


@pytest.mark.parametrize(
    "text",
    ["", ".", "C", "....", GRANT.text() + ".", GRANT.text() + "=", " " + GRANT.text(), GRANT.text() + "\n", "é",
     "\ud800", GRANT.text().split(".")[0] + "." + text_of(number(4, 3)), "C" * 65_537, "A" * 100_000, None, 7, b"C"],
)  # fmt: skip
def test_what_is_no_string_is_a_no(text: object) -> None:
    assert decode(text) is None
    assert judge(text, ASK, NOW) is Why.MALFORMED
    assert gpp.judge_any(text, ASK, NOW) is Why.MALFORMED


def test_no_beginning_of_a_string_is_a_yes_but_for_its_padding() -> None:
    whole = replace(GRANT, publisher=True).text()
    core_and_vendors = ".".join(whole.split(".")[:2])
    granting = [end for end in range(len(whole)) if judge(whole[:end], ASK, NOW) is Why.YES]
    assert granting[-1] == len(core_and_vendors)
    assert all(set(core_and_vendors[end:]) <= {"A"} for end in granting)  # what is missing is padding


@settings(max_examples=400)
@given(st.text(max_size=300))
def test_any_text_is_answered(text: str) -> None:
    assert gpp.judge_any(text, ASK, NOW) is not Why.YES


_VENDORS = st.lists(st.integers(1, 1_200), max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    purposes=st.sets(st.integers(1, 24)),
    interests=st.sets(st.integers(1, 24)),
    consent=_VENDORS,
    claim=_VENDORS,
    disclosed=st.none() | _VENDORS,
    restrictions=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2), _VENDORS), max_size=3),
    policy=st.sampled_from((2, 4, 5)),
    ranged=st.booleans(),
    one=st.booleans(),
    asked=st.lists(st.integers(1, 11), max_size=3),
    also=st.booleans(),
)
def test_both_readings_agree_on_whatever_can_be_written(
    purposes: set[int],
    interests: set[int],
    consent: list[int],
    claim: list[int],
    disclosed: list[int] | None,
    restrictions: list[tuple[int, int, list[int]]],
    policy: int,
    ranged: bool,
    one: bool,
    asked: list[int],
    also: bool,
) -> None:
    ours = [755] if also else []
    text = Tc(
        MADE,
        MADE,
        purposes=tuple(purposes),
        interests=tuple(interests),
        vendor_consent=consent + ours,
        vendor_interest=claim + ours,
        disclosed=None if disclosed is None else disclosed + ours,
        restrictions=restrictions,
        policy=policy,
        ranged=ranged,
        purpose_one_treatment=one,
    ).text()
    assert decode(text) is not None
    yes = judge(text, Ask(755, tuple(asked), interests=(2, 7, 3)), NOW) is Why.YES
    assert yes == says_yes(text, 755, tuple(asked), NOW, (2, 7, 3))


def test_mutations_never_make_a_yes() -> None:
    said = fuzz.run(8_000, seed=7)
    assert said["grant YES"] > 300
    assert said["refusal YES"] == 0
    assert said["refusal NOT_DISCLOSED"] > 100


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", [2]),
        ("DBACNYA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN", [2, 6]),
        ("DBABTA~1YNN", [6]),
        ("DBABjw~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN", [5, 6]),
    ],
)
def test_published_gpp_headers(text: str, sections: list[int]) -> None:
    found = gpp.decode(text)
    assert found is not None
    assert list(found.sections) == sections
    assert text.endswith(found.sections[sections[-1]])


def test_gpp_hands_the_european_section_on_and_gives_no_basis_from_others() -> None:
    tc = GRANT.text()
    assert gpp.judge_any(gpp_text({2: tc}), ASK, NOW) is Why.YES
    assert gpp.judge_any(gpp_text({2: tc, 7: "BAAA", 27: "BAAA"}), ASK, NOW) is Why.YES
    assert gpp.judge_any(gpp_text({7: tc}), ASK, NOW) is Why.NO_SECTION
    assert gpp.judge_any(gpp_text({5: tc, 6: "1YNN"}), ASK, NOW) is Why.NO_SECTION
    assert gpp.judge_any(gpp_text({2: tc}) + "~1YNN", ASK, NOW) is Why.MALFORMED
    assert gpp.judge_any(gpp_text({2: tc, 6: "1YNN"}).rpartition("~")[0], ASK, NOW) is Why.MALFORMED
    found = gpp.decode(gpp_text({2: tc, 7: "BAAA", 63: "x"}))
    assert found is not None
    assert found.names == ["tcfeuv2", "usnat", "section 63"]


@given(st.integers(1, 46_367))
def test_fibonacci_numbers_read_back(value: int) -> None:
    assert Bits(text_of(fibonacci(value))).fibonacci() == value


def test_a_fibonacci_number_without_end_is_refused() -> None:
    with pytest.raises(Malformed):
        Bits("K" * 40).fibonacci()
