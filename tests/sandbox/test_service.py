"""The vendor API: strict in what it takes, honest per operation, and as unpleasant as ordered."""

from __future__ import annotations

import io
import json

import aiohttp
import pytest

from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant, iso, parse_iso
from kiki_agent.sandbox import EffectsLog, Fault, Faults, SandboxServer, wire
from kiki_agent.sandbox.faults import AnswerLost
from kiki_agent.sandbox.server import MAX_BODY
from kiki_agent.sandbox.service import LOOKBACK_DAYS, MAX_KEYS, SandboxService
from kiki_agent.sandbox.wire import MAX_OPERATIONS, MAX_ROWS

from .vendor import START, Vendor, small_market

PLATFORMS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")
OPERATION = {"campaign": "100001", "max_cpc": "1.00", "client_ref": "k"}
REPORT = "/v1/meta/performance?first_day=2026-01-03&last_day=2026-01-05"


# ---- who may ask


def test_a_token_is_for_those_with_the_right_credentials(vendor: Vendor) -> None:
    said = vendor.log_in()
    assert (said.status, said.json["token_type"], said.json["expires_in"]) == (200, "bearer", 3600)
    for wrong in ({"client_id": "someone"}, {"client_secret": "guess"}, {"client_secret": ""}, {"client_id": "é"}):
        said = vendor.log_in(**wrong)
        assert (said.status, said.code) == (401, "INVALID_CLIENT")


@pytest.mark.parametrize("grant", [{"grant_type": "password"}, {"scope": "all"}, {"client_id": 7}])
def test_a_grant_of_another_shape_is_refused(vendor: Vendor, grant: dict[str, object]) -> None:
    said = vendor.log_in(**grant)
    assert (said.status, said.code) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic {token}",
        "Bearer {token}0",
        "Bearer sbx.9999999999999999.{signature}",
        "{token}",
    ],
)
def test_a_wrong_token_is_refused_before_anything_else(vendor: Vendor, header: str) -> None:
    token = vendor.headers["authorization"].removeprefix("Bearer ")
    forged = {"authorization": header.format(token=token, signature=token.rpartition(".")[2])}
    for path in ("/v1/meta/campaigns", "/v1/customers", "/v1/nowhere/campaigns", "/nothing"):
        said = vendor.ask("GET", path, headers=forged)
        assert (said.status, said.code) == (401, "UNAUTHENTICATED")
    said = vendor.ask("POST", "/v1/meta/bids", json.dumps({"operations": [OPERATION]}).encode(), forged)
    assert said.status == 401
    assert vendor.service.effects.count == 0


def test_a_token_ends_after_an_hour_and_a_new_one_works(vendor: Vendor) -> None:
    vendor.now = Instant(START + HOUR - 1)
    assert vendor.get("/v1/meta/campaigns").status == 200
    vendor.now = Instant(START + HOUR)
    assert vendor.get("/v1/meta/campaigns").status == 401
    vendor.log_in()
    assert vendor.get("/v1/meta/campaigns").status == 200


def test_tokens_outlive_a_restart(vendor: Vendor) -> None:
    again = Vendor(small_market())
    again.headers = vendor.headers
    assert again.get("/v1/meta/campaigns").status == 200


def test_health_asks_for_nothing_and_never_fails(vendor: Vendor) -> None:
    vendor.faults.order(Fault.ERROR)
    said = vendor.ask("GET", "/v1/health", headers={})
    assert (said.status, said.json["status"], said.json["now"]) == (200, "ok", iso(START))


# ---- what may be asked


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/meta",
        "/v1/facebook/campaigns",
        "/v1/META/campaigns",
        "/v1/meta/nothing",
        "/v1/meta/campaigns/",
        "/v1/meta/campaigns/100001",
        "/v1/meta/customers",
        "/v2/meta/campaigns",
        "//v1/meta/campaigns",
    ],
)
def test_an_unknown_path_is_not_found(vendor: Vendor, path: str) -> None:
    said = vendor.get(path)
    assert (said.status, said.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/token", "POST"),
        ("GET", "/v1/meta/bids", "POST"),
        ("PUT", "/v1/meta/budgets", "POST"),
        ("DELETE", "/v1/meta/status", "POST"),
        ("POST", "/v1/meta/campaigns", "GET"),
        ("POST", "/v1/meta/spend?since=2026-01-04T00:00:00Z", "GET"),
        ("HEAD", "/v1/customers", "GET"),
    ],
)
def test_a_wrong_method_names_the_right_one(vendor: Vendor, method: str, path: str, allow: str) -> None:
    said = vendor.ask(method, path)
    assert (said.status, said.code, said.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", allow)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/meta/performance",
        "/v1/meta/performance?first_day=2026-01-04",
        "/v1/meta/performance?last_day=2026-01-04",
        "/v1/meta/performance?first_day=2026-01-04&last_day=2026-01-03",
        "/v1/meta/performance?first_day=2026-02-30&last_day=2026-03-01",
        "/v1/meta/performance?first_day=2026-1-4&last_day=2026-01-05",
        "/v1/meta/performance?first_day=20260104&last_day=2026-01-05",
        "/v1/meta/performance?first_day=today&last_day=2026-01-05",
        "/v1/meta/performance?first_day=&last_day=",
        REPORT + "&cursor=-1",
        REPORT + "&cursor=x",
        REPORT + "&cursor=1&cursor=2",
        REPORT + "&fields=clicks",
        "/v1/meta/spend",
        "/v1/meta/spend?since=",
        "/v1/meta/spend?since=yesterday",
        "/v1/meta/spend?since=2026-01-04T25:00:00Z",
        "/v1/meta/campaigns?page_size=0",
        "/v1/meta/campaigns?page_size=501",
        "/v1/meta/campaigns?page_size=1.5",
        "/v1/meta/campaigns?page_size=" + "9" * 400,
        "/v1/meta/campaigns?page_token=3",
        "/v1/meta/campaigns?page=1",
        "/v1/meta/effects",
        "/v1/meta/effects?keys=,,",
        "/v1/meta/effects?keys=" + ",".join(map(str, range(MAX_KEYS + 1))),
        "/v1/customers?cursor=abc",
        "/v1/customers?since=2026-01-04",
        f"/v1/customers?page_size={MAX_ROWS + 1}",
        "/v1/customers?cursor=٣",
    ],
)
def test_bad_parameters_are_refused(vendor: Vendor, path: str) -> None:
    said = vendor.get(path)
    assert (said.status, said.code) == (400, "INVALID_ARGUMENT")
    assert said.json["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"note": "please"},
        {"max_cpc": 1.0},
        {"max_cpc": 1},
        {"max_cpc": None},
        {"max_cpc": "-1.00"},
        {"max_cpc": "+1.00"},
        {"max_cpc": "1e2"},
        {"max_cpc": "01.00"},
        {"max_cpc": "1,00"},
        {"max_cpc": "1."},
        {"max_cpc": ""},
        {"max_cpc": "NaN"},
        {"max_cpc": "1.0000001"},
        {"max_cpc": "99999999999"},
        {"campaign": 100001},
        {"campaign": None},
        {"client_ref": ""},
        {"client_ref": "r" * 65},
        {"client_ref": 5},
    ],
)
def test_an_operation_of_another_shape_spoils_its_batch(vendor: Vendor, change: dict[str, object]) -> None:
    before = vendor.bids()
    said = vendor.post("/v1/meta/bids", {"operations": [OPERATION, OPERATION | change]})
    assert (said.status, said.code) == (400, "INVALID_ARGUMENT")
    assert vendor.service.effects.count == 0
    assert vendor.bids() == before


@pytest.mark.parametrize("missing", ["campaign", "max_cpc", "client_ref"])
def test_no_field_may_be_missing(vendor: Vendor, missing: str) -> None:
    said = vendor.post("/v1/meta/bids", {"operations": [{k: v for k, v in OPERATION.items() if k != missing}]})
    assert said.status == 400
    assert missing in said.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"operations=1",
        b'{"operations": []}',
        b'{"operations": {}}',
        b'{"operations": [null]}',
        b'{"operations": [',
        b"\xff\xfe\x00",
        b'{"operations":' + b"[" * 100_000,
        b'{"else":' + b"[" * 100_000,
        json.dumps({"operations": [OPERATION], "dry_run": True}).encode(),
        json.dumps({"operations": [OPERATION] * (MAX_OPERATIONS + 1)}).encode(),
    ],
)
def test_a_body_of_another_shape_is_refused(vendor: Vendor, body: bytes) -> None:
    for verb in ("bids", "budgets", "status", "placements"):
        said = vendor.ask("POST", f"/v1/meta/{verb}", body)
        assert (said.status, said.code) == (400, "INVALID_ARGUMENT")
    assert vendor.service.effects.count == 0


def test_fields_of_one_verb_are_unknown_to_the_others(vendor: Vendor) -> None:
    for verb in ("budgets", "status", "placements"):
        assert vendor.post(f"/v1/meta/{verb}", {"operations": [OPERATION]}).status == 400
    wrong = {"campaign": "100001", "state": "REMOVED", "client_ref": "k"}
    assert vendor.post("/v1/meta/status", {"operations": [wrong]}).status == 400


# ---- what became of each operation


def test_each_operation_has_its_own_result(vendor: Vendor) -> None:
    campaign, other = vendor.bids()
    foreign = next(iter(vendor.bids("tiktok")))
    before = vendor.bids()
    said = vendor.bid(
        (campaign, "1.23", "good"),
        (foreign, "1.00", "foreign"),
        ("999999", "1.00", "unknown"),
        ("0" + campaign, "1.00", "zero in front"),
        (campaign + "\n", "1.00", "line break"),
        ("", "1.00", "empty"),
        ("9" * 5_000, "1.00", "endless"),
        (campaign, "0.04", "low"),
        (campaign, "0", "nothing"),
        (campaign, "1.234", "off step"),
        (campaign, "1.000001", "far off step"),
        (campaign, "1000000.01", "high"),
    )
    assert said.status == 200
    results = {each["client_ref"]: each for each in said.json["results"]}
    assert list(results)[0::11] == ["good", "high"]
    assert {ref: each.get("code", "OK") for ref, each in results.items()} == {
        "good": "OK",
        "foreign": "NOT_FOUND",
        "unknown": "NOT_FOUND",
        "zero in front": "NOT_FOUND",
        "line break": "NOT_FOUND",
        "empty": "NOT_FOUND",
        "endless": "NOT_FOUND",
        "low": "BELOW_MINIMUM",
        "nothing": "BELOW_MINIMUM",
        "off step": "BAD_STEP",
        "far off step": "BAD_STEP",
        "high": "ABOVE_MAXIMUM",
    }
    assert all((each["status"] == "OK") == (ref == "good") for ref, each in results.items())
    assert all("effect_id" not in each and each["message"] for ref, each in results.items() if ref != "good")
    assert len(said.body) < 4_000
    assert vendor.bids() == before | {campaign: "1.23"}
    assert vendor.bids()[other] == before[other]


def test_limits_themselves_are_allowed(vendor: Vendor) -> None:
    campaign = next(iter(vendor.bids()))
    for price in ("0.05", "1000000", "1000000.00", "7.1"):
        said = vendor.bid((campaign, price, "edge"))
        assert said.json["results"][0]["status"] == "OK"
    assert vendor.bids()[campaign] == "7.10"


def test_budgets_and_status_change_what_they_say(vendor: Vendor) -> None:
    first, second = (item["id"] for item in vendor.get("/v1/amazon/campaigns").json["campaigns"])
    money = [(first, "12.34", "b1"), (second, "0.99", "b2")]
    items = [{"campaign": each, "daily_budget": amount, "client_ref": ref} for each, amount, ref in money]
    results = vendor.post("/v1/amazon/budgets", {"operations": items}).json["results"]
    assert [each.get("code", "OK") for each in results] == ["OK", "BELOW_MINIMUM"]
    items = [{"campaign": second, "state": "PAUSED", "client_ref": "s1"}]
    assert vendor.post("/v1/amazon/status", {"operations": items}).json["results"][0]["status"] == "OK"
    listed = vendor.get("/v1/amazon/campaigns").json["campaigns"]
    assert listed[0]["daily_budget"] == "12.34"
    assert [each["state"] for each in listed] == ["ENABLED", "PAUSED"]
    assert listed[0]["min_daily_budget"] == "1.00"
    assert (listed[0]["cpc_step"], listed[0]["min_cpc"], listed[0]["currency"]) == ("0.01", "0.05", "USD")


def test_a_paused_campaign_spends_nothing_and_an_enabled_one_again(vendor: Vendor) -> None:
    def state(word: str) -> None:
        items = [{"campaign": each, "state": word, "client_ref": word} for each in vendor.bids("google_ads")]
        vendor.post("/v1/google_ads/status", {"operations": items})

    def spent() -> float:
        vendor.log_in()
        rows = vendor.get(f"/v1/google_ads/spend?since={iso(START)}").json["rows"]
        return sum(float(row["cost"]) for row in rows)

    state("PAUSED")
    vendor.now = Instant(START + 20 * HOUR)
    assert spent() == 0
    state("ENABLED")
    vendor.now = Instant(START + 2 * DAY)
    assert spent() > 0


def test_a_placement_is_an_effect_and_leaves_levels_and_spend_alone(vendor: Vendor) -> None:
    campaign = next(iter(vendor.bids()))
    before = vendor.market.state_hash()
    items = [
        {"campaign": campaign, "amount": amount, "client_ref": f"p{index}"}
        for index, amount in enumerate(("12.34", "0.00", "1.005"))
    ]
    results = vendor.post("/v1/meta/placements", {"operations": items}).json["results"]
    assert [each.get("code", "OK") for each in results] == ["OK", "BELOW_MINIMUM", "BAD_STEP"]
    assert vendor.market.state_hash() == before
    found = vendor.get("/v1/meta/effects?keys=p0,p1,p2").json["effects"]
    assert [(each["client_ref"], each["kind"]) for each in found] == [("p0", "place_bid")]
    assert [(each.before, each.after) for each in vendor.service.effects.recent()] == [(0, 12_340_000)]


# ---- effects


def test_effects_are_found_by_key_and_doubles_stay_visible(vendor: Vendor) -> None:
    campaign, other = vendor.bids()
    vendor.bid((campaign, "1.00", "once"), (campaign, "1.01", "twice"), (other, "9.999", "never"))
    vendor.now = Instant(START + 5 * SECOND)
    vendor.bid((campaign, "1.01", "twice"))
    found = vendor.get("/v1/meta/effects?keys=twice,never,once,unheard,twice").json["effects"]
    assert [(each["client_ref"], each["at"]) for each in found] == [
        ("twice", iso(START)),
        ("twice", iso(START + 5 * SECOND)),
        ("once", iso(START)),
    ]
    assert len({each["effect_id"] for each in found}) == 3
    assert {(each["campaign"], each["kind"]) for each in found} == {(campaign, "adjust_bid")}
    assert vendor.get("/v1/tiktok/effects?keys=once").json["effects"] == []


def test_effect_ids_are_those_of_the_answer_and_values_are_recorded(vendor: Vendor) -> None:
    campaign = next(iter(vendor.bids()))
    ids = [vendor.bid((campaign, price, price)).json["results"][0]["effect_id"] for price in ("1.00", "2.00")]
    found = vendor.get("/v1/meta/effects?keys=1.00,2.00").json["effects"]
    assert [each["effect_id"] for each in found] == ids
    first, second = vendor.service.effects.recent()
    assert (first.after, second.before, second.after) == (1_000_000, 1_000_000, 2_000_000)


def test_effects_are_forgotten_after_three_days(vendor: Vendor) -> None:
    campaign = next(iter(vendor.bids()))
    vendor.bid((campaign, "1.00", "old"))
    for hours in (71, 73):
        vendor.now = Instant(START + hours * HOUR)
        vendor.log_in()
        vendor.bid((campaign, "1.00", f"after {hours}"))
        found = vendor.get("/v1/meta/effects?keys=old").json["effects"]
        assert len(found) == (hours < 72)


# ---- reading


def test_campaigns_come_in_pages_of_any_size() -> None:
    vendor = Vendor(small_market(campaigns=36))
    whole = vendor.get("/v1/linkedin/campaigns").json
    assert whole["next_page_token"] == ""
    for size in (1, 2, 4, 5, 6, 7):
        pages, token = [], "0"
        while token:
            page = vendor.get(f"/v1/linkedin/campaigns?page_size={size}&page_token={token}").json
            assert 1 <= len(page["campaigns"]) <= size
            pages += page["campaigns"]
            token = page["next_page_token"]
        assert pages == whole["campaigns"]


def test_campaign_ids_are_unique_over_all_platforms(vendor: Vendor) -> None:
    listed = [each for name in PLATFORMS for each in vendor.bids(name)]
    assert len(listed) == len(set(listed)) == vendor.market.size


def test_performance_comes_in_pages_that_join_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ROWS", 7)
    vendor = Vendor(small_market(campaigns=36, history_days=5))
    path = "/v1/google_ads/performance?first_day=2025-10-01&last_day=2026-01-05"
    rows, cursor, pages = [], "0", 0
    while cursor is not None:
        page = vendor.get(f"{path}&cursor={cursor}").json
        assert len(page["rows"]) <= 7
        rows += page["rows"]
        cursor, pages = page["next_cursor"], pages + 1
    assert pages == -(-len(rows) // 7) > 1
    assert len({(row["campaign"], row["date"]) for row in rows}) == len(rows)
    assert {row["campaign"] for row in rows} <= set(vendor.bids("google_ads"))
    assert rows == sorted(rows, key=lambda row: row["date"])
    assert vendor.get(path + f"&cursor={len(rows)}").json["rows"] == []


def test_a_report_covers_no_more_than_it_says(vendor: Vendor) -> None:
    vendor.now = Instant(START + 9 * HOUR + 7 * MINUTE + 13 * SECOND)
    vendor.log_in()
    for platform in PLATFORMS:
        said = vendor.get(f"/v1/{platform}/performance?first_day=1990-01-01&last_day=2199-12-31").json
        assert START <= parse_iso(said["as_of"]) < vendor.now
        dates = {row["date"] for row in said["rows"]}
        assert dates <= {"2026-01-03", "2026-01-04", "2026-01-05"}
        assert said["final_before"] < "2026-01-03"


def test_reports_of_the_future_and_the_distant_past_are_empty(vendor: Vendor) -> None:
    for first, last in (("2026-01-09", "2026-02-01"), ("2020-01-01", "2020-12-31")):
        assert vendor.get(f"/v1/meta/performance?first_day={first}&last_day={last}").json["rows"] == []
    assert vendor.get("/v1/meta/spend?since=2030-01-01T00:00:00Z").json["rows"] == []


def test_old_days_end_at_the_look_back() -> None:
    vendor = Vendor(small_market(history_days=100))
    vendor.now = Instant(START + 60 * DAY + 12 * HOUR)
    vendor.log_in()
    rows = vendor.get("/v1/meta/spend?since=2000-01-01T00:00:00Z").json["rows"]
    assert len({row["date"] for row in rows}) == LOOKBACK_DAYS + 1
    page = vendor.get("/v1/meta/performance?first_day=2000-01-01&last_day=2030-01-01").json["rows"]
    assert min(row["date"] for row in page) == min(row["date"] for row in rows)


def test_spend_counts_whole_account_days_and_agrees_with_the_report(vendor: Vendor) -> None:
    spend = vendor.get("/v1/meta/spend?since=2026-01-04T15:00:00Z").json
    assert spend["as_of"] == iso(START)
    assert {row["date"] for row in spend["rows"]} == {"2026-01-04", "2026-01-05"}
    report = vendor.get("/v1/meta/performance?first_day=2026-01-03&last_day=2026-01-03").json["rows"]
    early = vendor.get("/v1/meta/spend?since=2026-01-03T00:00:00Z").json["rows"]
    costs = {row["campaign"]: row["cost"] for row in early if row["date"] == "2026-01-03" and row["cost"] != "0.00"}
    assert costs == {row["campaign"]: row["cost"] for row in report}


def test_customers_are_read_on_from_a_cursor_without_gap_or_double() -> None:
    vendor = Vendor(small_market(campaigns=24, history_days=4))
    whole = vendor.get(f"/v1/customers?page_size={MAX_ROWS}").json
    assert not whole["more"]
    for size in (1, 7, 100):
        found, cursor, more = [], "0", True
        while more:
            page = vendor.get(f"/v1/customers?page_size={size}&cursor={cursor}").json
            assert len(page["customers"]) <= size
            found += page["customers"]
            cursor, more = page["cursor"], page["more"]
        assert found == whole["customers"]
        assert cursor == whole["cursor"]
    vendor.now = Instant(START + 12 * HOUR)
    vendor.log_in()
    later = vendor.get(f"/v1/customers?page_size={MAX_ROWS}&cursor={whole['cursor']}").json["customers"]
    assert later
    assert all(each["updated_at"] >= iso(START) for each in later)
    assert [each["updated_at"] for each in later] == sorted(each["updated_at"] for each in later)


def test_an_unknown_cursor_continues_at_the_end(vendor: Vendor) -> None:
    end = vendor.get(f"/v1/customers?page_size={MAX_ROWS}").json["cursor"]
    said = vendor.get("/v1/customers?cursor=99999999").json
    assert (said["customers"], said["cursor"], said["more"]) == ([], end, False)


# ---- bad days


def test_too_many_requests_in_a_minute_are_throttled_until_the_next() -> None:
    vendor = Vendor(small_market(), requests_per_minute=3)
    vendor.now = Instant(START + 10 * SECOND + 1)
    assert [vendor.get("/v1/meta/campaigns").status for _ in range(3)] == [200] * 3
    said = vendor.bid(("100001", "1.00", "k"))
    assert (said.status, said.code, said.headers["retry-after"]) == (429, "RATE_LIMITED", "50")
    assert vendor.service.effects.count == 0
    assert vendor.get("/v1/tiktok/campaigns").status == 200
    vendor.now = Instant(START + MINUTE - 1)
    assert vendor.get("/v1/meta/campaigns").headers["retry-after"] == "1"
    vendor.now = Instant(START + MINUTE)
    assert vendor.get("/v1/meta/campaigns").status == 200


def test_a_failing_request_changes_nothing(vendor: Vendor) -> None:
    before = vendor.market.state_hash()
    vendor.faults.order(Fault.ERROR, path="/bids")
    said = vendor.bid(("100001", "1.00", "k"))
    assert (said.status, said.code) == (500, "INTERNAL")
    vendor.faults.order(Fault.THROTTLED, path="/bids")
    said = vendor.bid(("100001", "1.00", "k"))
    assert (said.status, said.headers["retry-after"]) == (429, "30")
    vendor.faults.order(Fault.GARBAGE, path="/bids")
    said = vendor.bid(("100001", "1.00", "k"))
    assert (said.status, said.headers["content-type"]) == (200, "text/html")
    with pytest.raises(ValueError):
        json.loads(said.body)
    vendor.faults.order(Fault.FAILED, path="/bids")
    said = vendor.bid(("100001", "1.00", "k"), ("100002", "1.00", "l"))
    assert said.status == 200
    assert [(each["status"], each["code"]) for each in said.json["results"]] == [("ERROR", "TRY_LATER")] * 2
    assert vendor.market.state_hash() == before
    assert vendor.service.effects.count == 0
    assert vendor.faults.injected == 4


def test_a_lost_answer_did_what_it_was_asked(vendor: Vendor) -> None:
    vendor.faults.order(Fault.LOST, path="/bids")
    with pytest.raises(AnswerLost):
        vendor.bid(("100001", "1.00", "k"))
    assert vendor.bids()["100001"] == "1.00"
    assert len(vendor.get("/v1/meta/effects?keys=k").json["effects"]) == 1


def test_a_failed_read_says_so_inside(vendor: Vendor) -> None:
    for path in ("/v1/meta/campaigns", REPORT, "/v1/customers"):
        vendor.faults.order(Fault.FAILED)
        said = vendor.get(path)
        assert (said.status, said.code) == (200, "TRY_LATER")
        assert vendor.get(path).status == 200


def test_orders_wait_for_their_path_and_their_number(vendor: Vendor) -> None:
    vendor.faults.order(Fault.ERROR, path="/v1/tiktok/", times=2)
    vendor.faults.order(Fault.THROTTLED, path="/token")
    assert vendor.get("/v1/meta/campaigns").status == 200
    assert [vendor.get("/v1/tiktok/campaigns").status for _ in range(3)] == [500, 500, 200]
    assert [vendor.log_in().status for _ in range(2)] == [429, 200]


def test_faults_by_rate_are_repeatable_and_of_every_kind() -> None:
    def kinds(seed: int) -> list[Fault | None]:
        faults = Faults(0.05, seed)
        return [faults.next("/v1/meta/bids") for _ in range(4_000)]

    assert kinds(1) == kinds(1) != kinds(2)
    hit = [each for each in kinds(1) if each is not None]
    assert 120 < len(hit) < 280
    assert set(hit) == {Fault.ERROR, Fault.GARBAGE, Fault.LOST, Fault.FAILED}
    assert not any(Faults(0.0, 1).next("/") for _ in range(100))


def test_a_fair_start_is_as_long_as_the_faults_are_rare() -> None:
    """Whoever starts the demo for the first time sees it work before something goes wrong; orders hold all the same."""
    fair, plain = Faults(0.05, 1, fair_start=True), Faults(0.05, 1)
    begun, after = [fair.next("/") for _ in range(20)], [fair.next("/") for _ in range(2_000)]
    assert not any(begun)
    sooner = [plain.next("/") for _ in range(20)]
    assert any(sooner), "else this seed shows nothing"
    assert after == [plain.next("/") for _ in range(2_000)], "and then it is what it would have been"
    told = Faults(0.001, 1, fair_start=True)
    told.order(Fault.ERROR)
    assert told.next("/") is Fault.ERROR
    assert not any(Faults(0.0, 1, fair_start=True).next("/") for _ in range(100))


def test_a_service_keeps_its_effects_in_the_log_it_was_given() -> None:
    effects = EffectsLog()
    vendor = Vendor(small_market(), effects)
    vendor.bid(("100001", "1.00", "k"))
    assert [(each.key, each.platform, each.after) for each in effects.recent()] == [("k", "meta", 1_000_000)]


# ---- over a socket


async def test_the_server_adds_nothing_but_the_socket() -> None:
    vendor = Vendor(small_market())
    server = SandboxServer(lambda: START, nonce="n")
    await server.start()
    try:
        async with aiohttp.ClientSession(server.base_url, headers=vendor.headers) as session:
            async with session.get("/v1/health") as answer:
                assert (answer.status, (await answer.json())["nonce"]) == (200, "n")
            async with session.get("/v1/meta/campaigns") as answer:
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            server.service = vendor.service
            for path in ("/v1/meta/campaigns?page_size=1", REPORT, "/v1/customers", "/nothing", "/v1/meta/spend"):
                async with session.get(path) as answer:
                    said = vendor.get(path)
                    assert (answer.status, await answer.read()) == (said.status, said.body)
            async with session.post("/v1/meta/bids", data=io.BytesIO(b" " * (MAX_BODY + 1))) as answer:
                assert answer.status == 413
            vendor.faults.order(Fault.LOST, path="/bids")
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.post("/v1/meta/bids", json={"operations": [OPERATION]})
            assert vendor.service.effects.count == 1
            async with session.get("/v1/meta/campaigns") as answer:
                assert answer.status == 200
    finally:
        await server.close()


@pytest.mark.parametrize(
    "body",
    [
        b'{"\xff": 1}',
        b'{"operations": [{"campaign": "100001", "max_cpc": "1.00\\n", "client_ref": "k"}]}',
    ],
)
def test_bytes_that_are_no_text_and_amounts_with_a_tail_are_refused(body: bytes) -> None:
    service = SandboxService(small_market())
    token = service.tokens.issue("sandbox", "sandbox", START)
    assert token is not None
    headers = {"authorization": f"Bearer {token[0]}"}
    status, _, _ = service.handle("POST", "/v1/meta/bids", headers, body, START)
    assert status == 400
    forged = {"authorization": "Bearer sbx.99999999999999999.\udcff"}
    assert service.handle("GET", "/v1/meta/campaigns", forged, b"", START)[0] == 401
