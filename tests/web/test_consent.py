"""Consents and privacy over HTTP, through the real store, ledger, shield and keys (SHD-04, SHD-05, SHD-12, M12)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.consent import Consents, Privacy, Vault, Vendors, seeded_entropy
from kiki_agent.errors import StoreError
from kiki_agent.ledger import DecisionBook, Ledger, Outbox, Records
from kiki_agent.model import DAY, Instant, Intent, Outcome, Receipt, iso
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store
from kiki_agent.web import Services
from tests.consent.encoder import Tc

from .conftest import Client
from .fakes import NOON, UNIT
from .fakes import services as well

ANNA = {"customer_id": "anna-canary", "consent_type": "targeting"}
BID = {"campaign_id": "c1", "platform": "meta", "bid_amount": "0.10"}


class Platform:
    """Stands behind the outbox; each bid takes a turn of the event loop or several."""

    def __init__(self) -> None:
        self.bids: list[Intent] = []

    async def call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        (intents,) = arguments
        assert isinstance(intents, tuple)
        self.bids += intents
        await asyncio.sleep(0)
        return [Receipt(each.key, Outcome.ACCEPTED) for each in intents]


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def services(tmp_path: Path, platform: Platform) -> AsyncIterator[Services]:
    made = well()
    store = await Store.open(tmp_path / "agent.db", synchronous="OFF", readers=1, now=NOON)
    ledger = await Ledger.open(store, tmp_path / "head", client_id="demo", now=NOON)
    vault = await Vault.open(tmp_path / "keys", tmp_path / "erased", synchronous="OFF", entropy=seeded_entropy(1))
    made.store, made.ledger, made.records = store, ledger, Records(store)
    made.decisions = DecisionBook(store, ledger)
    made.outbox = Outbox(store, ledger, platform.call)
    caps = {name: Caps(10_000 * UNIT, 1_000 * UNIT) for name in made.settings.connector}
    made.shield = await Shield.open(store, ledger, made.settings, caps, NOON)
    made.consents = Consents(store, ledger, vault, Vendors(755, {}))
    made.privacy = Privacy(store, ledger, vault, made.consents)
    yield made
    await store.drain()
    assert (await ledger.verify()).ok
    await store.close()
    await vault.close()


async def ask(client: Client, path: str, body: object | None = None, status: int = 200) -> dict[str, Any]:
    answer = await (client.get(path) if body is None else client.post(path, json=body))
    assert answer.status == status, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


async def bid(client: Client) -> str | None:
    body = await ask(client, "/api/v1/bids", {**BID, "customer_id": ANNA["customer_id"]})
    assert (body["status"] == "ACCEPTED") is (body["reason"] is None)
    reason: str | None = body["reason"]
    return reason


async def entries(services: Services) -> list[tuple[int, str, dict[str, Any]]]:
    assert isinstance(services.store, Store)
    rows = await services.store.read(
        lambda connection: connection.execute("SELECT seq, kind, body FROM ledger_entries ORDER BY seq").fetchall()
    )
    return [(seq, kind, json.loads(body)) for seq, kind, body in rows]


async def test_a_bid_about_a_person_needs_their_consent_and_carries_it(client: Client, services: Services) -> None:
    assert await bid(client) == "CONSENT"
    granted = await ask(client, "/consent/grant", ANNA)
    assert granted["status"] == "granted"
    assert await bid(client) is None
    assert (await ask(client, "/consent/revoke", ANNA))["status"] == "revoked"
    assert await bid(client) == "CONSENT"
    basis = f"consent:{granted['consent_id']}"
    rows = await entries(services)
    bases = {(kind, body["basis"]) for _, kind, body in rows if "basis" in body}
    assert bases == {("permit", basis), ("intent", basis), ("privacy", "denied")}
    assert isinstance(services.store, Store)
    stored = await services.store.read(
        lambda connection: connection.execute(
            "SELECT r.basis, i.basis FROM reservations r JOIN intents i ON i.cause = r.reservation_id"
        ).fetchall()
    )
    assert stored == [(basis, basis)]


async def test_a_bid_about_nobody_is_not_personal(client: Client, services: Services) -> None:
    assert (await ask(client, "/api/v1/bids", BID))["status"] == "ACCEPTED"
    assert {body["basis"] for _, _, body in await entries(services) if "basis" in body} == {"not_personal"}


async def test_after_a_revocation_no_bid_has_the_old_basis(
    client: Client, services: Services, platform: Platform
) -> None:
    """Bids, grants and revocations all at once: in the order of the chain no bid follows the no to its yes (M12)."""
    await ask(client, "/consent/grant", ANNA)
    assert await bid(client) is None

    async def many_bids() -> None:
        for _ in range(25):
            await bid(client)

    async def back_and_forth() -> None:
        for _ in range(12):
            await ask(client, "/consent/revoke", ANNA)
            await ask(client, "/consent/grant", ANNA)

    await asyncio.gather(many_bids(), many_bids(), many_bids(), back_and_forth())
    await ask(client, "/consent/revoke", ANNA)
    before = len(platform.bids)
    assert {await bid(client) for _ in range(5)} == {"CONSENT"}
    assert len(platform.bids) == before
    rows = await entries(services)
    ended: set[str] = set()
    held: str | None = None
    bids = 0
    for _, kind, body in rows:
        if kind == "consent":
            if held is not None:
                ended.add(held)
            held = f"consent:{body['consent_id']}" if body["status"] == "GRANTED" else None
        elif kind == "intent" or (kind == "permit" and body["state"] == "reserved"):
            bids += 1
            assert body["basis"] not in ended, body
            assert body["basis"] == held
    assert bids >= 2
    assert len(ended) >= 13


async def test_a_grant_that_has_run_out_already_is_refused(client: Client, services: Services) -> None:
    problem = await ask(client, "/consent/grant", {**ANNA, "expires_at": iso(services.clock.now())}, 422)
    assert "expires_at" in problem["detail"]
    assert await bid(client) == "CONSENT"


async def test_status_and_check_tell_what_is_in_force(client: Client) -> None:
    who = "customer_id=anna-canary"
    assert set((await ask(client, f"/consent/status?{who}")).values()) == {None}
    assert (await ask(client, f"/consent/check?{who}&platform=facebook")) == {"allowed": False, "basis": "denied"}
    made = await ask(client, "/consent/grant", {**ANNA, "version": "2026-01", "legal_basis": "Consent"})
    state = (await ask(client, f"/consent/status?{who}"))["targeting"]
    assert (state["status"], state["in_force"], state["version"], state["source"]) == (
        "GRANTED",
        True,
        "2026-01",
        "api",
    )
    found = await ask(client, f"/consent/check?{who}&platform=PLATFORM_META")
    assert found == {"allowed": True, "basis": f"consent:{made['consent_id']}"}
    assert not (await ask(client, f"/consent/check?{who}&platform=meta&consent_type=marketing"))["allowed"]
    await ask(client, "/consent/revoke", ANNA)
    state = (await ask(client, f"/consent/status?{who}"))["targeting"]
    assert (state["status"], state["in_force"], state["revoked_at"] is None) == ("REVOKED", False, False)


async def test_a_string_is_taken_or_refused_with_its_reason(client: Client, services: Services) -> None:
    now = services.clock.now()
    made = Instant(now // DAY * DAY)
    body = {"customer_id": "anna-canary", "consent_string": Tc(made, made).text()}
    taken = await ask(client, "/consent/string", body)
    assert taken["changed"]["targeting"]["vendors"] == [755]
    assert taken["changed"]["analytics"]["status"] == "DENIED"
    assert await bid(client) is None
    assert (await ask(client, "/consent/string", body))["unchanged"] == 3
    for text, code in (("rubbish", "MALFORMED"), (Tc(made, made, policy=2).text(), "POLICY_VERSION")):
        problem = await ask(client, "/consent/string", {**body, "consent_string": text}, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, "consent_string")
    assert await bid(client) is None


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/consent/grant", {**ANNA, "consent_type": "everything"}, "consent_type"),
        ("/consent/grant", {**ANNA, "customer_id": ""}, "customer_id"),
        ("/consent/grant", {**ANNA, "customer_id": "a\nb"}, "customer_id"),
        ("/consent/grant", {**ANNA, "expires_at": "soon"}, "expires_at"),
        ("/consent/grant", {**ANNA, "colour": "red"}, "colour"),
        ("/consent/revoke", {"customer_id": "a"}, "consent_type"),
        ("/consent/string", {"customer_id": "a", "consent_string": "x" * 65_537}, "consent_string"),
        ("/api/v1/privacy/requests", {"customer_id": "a", "request_type": "FORGET"}, "request_type"),
    ],
)
async def test_wrong_values_are_named_and_nothing_is_written(
    client: Client, services: Services, path: str, body: dict[str, object], field: str
) -> None:
    problem = await ask(client, path, body, 422)
    assert [each["field"] for each in problem["errors"]] == [field]
    assert [kind for _, kind, _ in await entries(services) if kind in ("consent", "privacy")] == []


async def test_what_is_not_there_is_404(client: Client) -> None:
    await ask(client, "/consent/revoke", ANNA, 404)
    await ask(client, "/api/v1/privacy/requests", {"customer_id": "stranger", "request_type": "ACCESS"}, 404)
    await ask(client, "/api/v1/privacy/requests/no-such", None, 404)


async def test_a_person_gets_an_export_and_is_erased(client: Client, services: Services, tmp_path: Path) -> None:
    await ask(client, "/consent/grant", {**ANNA, "ip_address": "203.0.113.5", "user_agent": "Canary/1"})
    await bid(client)
    who = {"customer_id": "anna-canary"}
    made = await ask(client, "/api/v1/privacy/requests", {**who, "request_type": "ACCESS"}, 202)
    found = await ask(client, f"/api/v1/privacy/requests/{made['request_id']}")
    assert (found["status"], found["export"]["customer_id"]) == ("COMPLETED", "anna-canary")
    assert len(found["export"]["bids"]) == 1
    assert found["export"]["record"][0]["evidence"] == {"ip_address": "203.0.113.5", "user_agent": "Canary/1"}
    await ask(client, "/api/v1/privacy/requests", {**who, "request_type": "DELETION"}, 202)
    assert (await ask(client, f"/api/v1/privacy/requests/{made['request_id']}"))["export"] is None
    assert await bid(client) == "CONSENT"
    assert isinstance(services.store, Store)
    await services.store.backup(tmp_path / "backup.db")
    files = [tmp_path / name for name in os.listdir(tmp_path)]
    assert {path.name for path in files} >= {"agent.db", "agent.db-wal", "backup.db", "keys", "erased", "head"}
    for trace in (b"anna-canary", b"203.0.113.5", b"Canary/1"):
        assert [path.name for path in files if trace in path.read_bytes()] == []


async def test_the_auditor_sees_numbers_and_entries_but_no_names(client: Client) -> None:
    await ask(client, "/consent/grant", {**ANNA, "ip_address": "203.0.113.5"})
    await ask(client, "/consent/revoke", ANNA)
    await ask(client, "/api/v1/privacy/requests", {"customer_id": "anna-canary", "request_type": "ACCESS"}, 202)
    report = await ask(client, "/api/v1/compliance/report?period=monthly")
    assert report["consents"] == {"REVOKED": 1}
    assert (report["requests"]["ACCESS"], report["requests"]["overdue"]) == (1, 0)
    listed = await ask(client, "/api/v1/audit?limit=2")
    assert (listed["total"], [each["event_type"] for each in listed["items"]]) == (3, ["privacy", "consent"])
    assert {each["retention_days"] for each in listed["items"]} == {2_555.0}
    assert "anna-canary" not in json.dumps(listed)
    mine = await ask(client, "/api/v1/audit?user_id=anna-canary&event_type=consent")
    assert [each["event_data"]["status"] for each in mine["items"]] == ["REVOKED", "GRANTED"]
    assert (await ask(client, "/api/v1/audit?user_id=stranger"))["items"] == []


async def test_every_reading_about_a_person_is_on_record(client: Client) -> None:
    who = "anna-canary"
    await ask(client, f"/consent/status?customer_id={who}")
    await ask(client, "/consent/grant", ANNA)
    await ask(client, f"/consent/status?customer_id={who}")
    found = (await ask(client, f"/api/v1/audit?user_id={who}&event_type=privacy"))["items"]
    assert [(each["event_data"]["action"], each["event_data"]["purpose"]) for each in found] == [
        ("read", "audit"),
        ("read", "consent status"),
    ], "and of who is not known there is nothing to read"


async def test_a_bid_without_a_basis_is_on_record_and_in_the_report(client: Client, services: Services) -> None:
    assert await bid(client) == "CONSENT"
    await ask(client, "/consent/grant", ANNA)
    assert await bid(client) is None
    await ask(client, "/consent/revoke", ANNA)
    assert await bid(client) == "CONSENT"
    listed = (await ask(client, "/api/v1/audit?event_type=privacy"))["items"]
    assert [each["event_data"]["action"] for each in listed] == ["bid_refused", "bid_refused"]
    told = [(each["event_data"]["basis"], each["event_data"]["purpose"]) for each in listed]
    assert told == [("denied", "targeting")] * 2
    assert [each["event_data"]["subject"] == "" for each in listed] == [False, True], "a stranger gets no token by it"
    assert (await ask(client, "/api/v1/compliance/report"))["vetoes"]["CONSENT"] == 2


async def test_a_refusal_that_cannot_be_noted_is_a_no(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(services.privacy, "refused", full)
    assert await bid(client) == "CONSENT"


async def test_a_request_that_waits_ends_once(client: Client) -> None:
    await ask(client, "/consent/grant", ANNA)
    body = {"customer_id": "anna-canary", "request_type": "RECTIFICATION"}
    made = [await ask(client, "/api/v1/privacy/requests", body, 202) for _ in range(3)]
    paths = [f"/api/v1/privacy/requests/{each['request_id']}" for each in made]

    async def settle(path: str, given: object, status: int) -> dict[str, Any]:
        answer = await client.put(path, json=given)
        assert answer.status == status, await answer.text()
        return dict(await answer.json())

    assert (await settle(paths[0], {"status": "COMPLETED"}, 200))["status"] == "COMPLETED"
    assert (await settle(paths[1], {"status": "REJECTED"}, 200))["completed_at"] is not None
    await settle(paths[0], {"status": "REJECTED"}, 409)
    await settle(paths[2], {"status": "PENDING"}, 422)
    await settle("/api/v1/privacy/requests/none", {"status": "COMPLETED"}, 404)
    assert [(await ask(client, each))["status"] for each in paths] == ["COMPLETED", "REJECTED", "PENDING"]
    await ask(client, "/api/v1/privacy/requests", {**body, "request_type": "DELETION"}, 202)
    assert (await ask(client, paths[2]))["notes"] == "erased meanwhile", "nothing waits for who is not known any more"


async def test_a_check_about_a_person_needs_their_consent_too(client: Client) -> None:
    await ask(client, "/api/v1/allocate", {"campaign_id": "c1", "budget": 50}, 201)
    body = {**BID, "customer_id": "anna-canary"}
    assert (await ask(client, "/api/v1/check", body))["reason"] == "CONSENT"
    assert (await ask(client, "/api/v1/check", {**body, "reserve": True}))["reason"] == "CONSENT"
    assert (await ask(client, "/api/v1/compliance/report"))["vetoes"] == {"CONSENT": 2}
    await ask(client, "/consent/grant", ANNA)
    assert (await ask(client, "/api/v1/check", {**body, "reserve": True}))["allowed"]


async def test_without_the_consent_room_every_person_is_denied(client: Client, services: Services) -> None:
    await ask(client, "/consent/grant", ANNA)
    services.consents = None
    assert await bid(client) == "CONSENT"
