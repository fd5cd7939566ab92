"""Liveness, readiness, status, metrics."""

from __future__ import annotations

from kiki_agent.errors import StoreError
from kiki_agent.model import HOUR, Instant
from kiki_agent.web import Services
from kiki_agent.web.endpoint import WITHOUT_RECORD
from kiki_agent.web.routes import ENDPOINTS

from .conftest import Client
from .fakes import FakeLedger, FakeShield, FakeStore


async def test_health_tells_the_parts(client: Client) -> None:
    body = await (await client.get("/health")).json()
    assert body["status"] == "healthy"
    assert body["components"]["syncshield"] == {"status": "up", "reason": None}
    assert body["components"]["billing"]["status"] == "off"


async def test_health_is_plain_ok_for_those_who_want_text(client: Client) -> None:
    answer = await client.get("/health", headers={"Accept": "text/plain"})
    assert (answer.status, await answer.text()) == (200, "OK")
    assert answer.content_type == "text/plain"


async def test_health_stays_200_when_a_part_is_down(client: Client, services: Services) -> None:
    assert isinstance(services.store, FakeStore)
    services.store.failure = "disk full"
    answer = await client.get("/health")
    body = await answer.json()
    assert (answer.status, body["status"]) == (200, "degraded")
    assert body["components"]["store"] == {"status": "down", "reason": "disk full"}


async def test_ready_says_what_is_missing(client: Client, services: Services) -> None:
    assert (await client.get("/ready")).status == 200
    services.starting = "starting: the record is being opened"
    answer = await client.get("/ready")
    assert (answer.status, await answer.json()) == (
        503,
        {"ready": False, "reason": "starting: the record is being opened"},
    )


async def test_ready_is_503_in_safe_hold_and_when_frozen(client: Client, services: Services) -> None:
    assert isinstance(services.ledger, FakeLedger)
    assert services.supervisor is not None
    services.ledger.hold_reason = "the ledger is empty, but entry 80 is known"
    assert "entry 80" in (await (await client.get("/ready")).json())["reason"]
    services.ledger.hold_reason = None
    bidding = services.supervisor.health["bidding"]
    bidding.faulted, services.supervisor.frozen = True, True
    answer = await client.get("/ready")
    assert answer.status == 503
    assert "bidding" in (await answer.json())["reason"]


async def test_the_kill_switch_does_not_make_it_unready(client: Client, services: Services) -> None:
    assert isinstance(services.shield, FakeShield)
    services.shield.killed = True
    assert (await client.get("/ready")).status == 200


async def test_nothing_but_the_open_routes_and_the_page_answers_while_starting(
    client: Client, services: Services
) -> None:
    services.starting = "starting"
    answer = await client.get("/api/v1/decisions")
    assert (answer.status, (await answer.json())["code"]) == (503, "STARTING")
    assert answer.headers["Retry-After"] == "1"
    for path in ("/health", "/healthz", "/", "/status", "/api/v1/overview"):
        assert (await client.get(path)).status == 200


async def test_the_first_answers_need_no_service_at_all(client: Client, services: Services) -> None:
    for name in ("store", "ledger", "decisions", "outbox", "records", "shield", "accounts", "value", "optimizer",
                 "alerts", "plugins", "supervisor"):  # fmt: skip
        setattr(services, name, None)
    services.starting = "starting"
    for path in ("/health", "/status", "/api/v1/overview", "/metrics"):
        assert (await client.get(path)).status == 200, path
    services.starting = None
    answer = await client.get("/api/v1/budget/c1")
    assert (answer.status, (await answer.json())["code"]) == (503, "COMPONENT_OFF")


async def test_status_shows_the_optimizer_and_every_task(client: Client) -> None:
    body = await (await client.get("/status")).json()
    assert body["optimizer"]["last_run"] == "2026-03-10T14:18:12.000000Z"
    assert body["optimizer"]["next_run"] == "2026-03-10T14:23:12.000000Z"
    assert body["optimizer"]["last_result"]
    assert [task["name"] for task in body["tasks"]] == ["bidding", "optimizer"]
    shield = body["components"]["syncshield"]
    assert all(shield[name] for name in ("enabled", "ready", "database_ok"))
    assert "POST /api/v1/allocate" in shield["endpoints"]
    assert shield["metrics"]


async def test_requests_are_counted_by_route_template(client: Client) -> None:
    await client.get("/api/v1/connectors/meta")
    await client.get("/api/v1/connectors/nope")
    for number in range(5):
        await client.get(f"/made/up/{number}")
    text = await (await client.get("/metrics")).text()
    route = "/api/v1/connectors/{id}"
    assert f'kiki_http_requests_total{{method="GET",route="{route}",status="200"}} 1.0' in text
    assert f'kiki_http_requests_total{{method="GET",route="{route}",status="404"}} 1.0' in text
    assert 'route="unmatched",status="404"} 5.0' in text
    assert "/made/up" not in text


async def test_a_failing_database_is_503_with_the_reason(client: Client, services: Services) -> None:
    async def broken(**_: object) -> object:
        raise StoreError("database is locked")

    services.records.reallocations = broken  # type: ignore[union-attr,method-assign,assignment]
    answer = await client.get("/api/v1/ledger/reallocations")
    body = await answer.json()
    assert (answer.status, body["code"]) == (503, "STORE_UNAVAILABLE")
    assert "locked" in body["detail"]


async def test_before_the_first_success_nothing_is_invented(client: Client, services: Services) -> None:
    assert services.supervisor is not None
    services.supervisor.health["bidding"].last_success = None
    services.started_at = Instant(services.started_at + HOUR)
    task = (await (await client.get("/status")).json())["tasks"][0]
    assert task["last_success"] is None


async def test_nothing_is_promised_while_a_stand_in_takes_the_place_of_the_database(
    client: Client, services: Services
) -> None:
    assert isinstance(services.shield, FakeShield)
    services.stand_in = "the database is damaged: page 3"
    orders = [each for each in ENDPOINTS if each.method != "GET" and each.path not in WITHOUT_RECORD]
    assert {"/api/v1/allocate", "/consent/grant", "/api/v1/conversions"} <= {each.path for each in orders}
    for each in orders:
        answer = await client.request(each.method, each.path.replace("{", "").replace("}", ""), json={})
        assert answer.status == 503, each.path
        assert "until a backup is restored: the database is damaged" in (await answer.json())["detail"]
    assert not services.shield.calls
    stopped = await client.post("/admin/kill-switch", json={"on": True, "reason": "a test"})
    body = await stopped.json()
    assert (stopped.status, body["on"], body["recorded"]) == (200, True, False)
    assert (await client.post("/admin/kill-switch", json={"on": False})).status == 503
    assert services.shield.killed
    assert {each.path for each in ENDPOINTS} >= WITHOUT_RECORD
