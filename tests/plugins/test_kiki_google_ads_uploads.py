"""Conversions on their way to Google: value, order, consent, and values that change later."""

from __future__ import annotations

from typing import Any

import pytest

from kiki_agent.errors import Rejected
from kiki_agent.sandbox import Fault
from tests.contracts.google_rig import ACTION, google


def told(receipts: Any) -> list[tuple[str, str]]:
    return [(each.outcome.value, each.reason) for each in receipts]


async def test_conversions_carry_value_order_and_consent() -> None:
    async with google() as rig:
        given = [
            rig.conversion(1, 12_340_000),
            rig.conversion(2, 0, basis="not_personal"),
            rig.conversion(3, 1, click="gbraid:abcd", order="A-3"),
        ]
        assert told(await rig.to("upload_conversions", given)) == [("accepted", "")] * 3
        sent = rig.asked(":uploadClick")[0]["conversions"]
        assert sent[0] == {
            "gclid": "click-1",
            "conversionAction": f"customers/1234567890/conversionActions/{ACTION}",
            "conversionDateTime": "2026-05-31 00:00:00+00:00",
            "conversionValue": 12.34,
            "currencyCode": "USD",
            "orderId": "order-1",
            "consent": {"adUserData": "GRANTED", "adPersonalization": "GRANTED"},
        }
        assert sent[1]["consent"] == {"adUserData": "DENIED", "adPersonalization": "DENIED"}
        assert (sent[2]["gbraid"], sent[2]["orderId"], sent[2]["conversionValue"]) == ("abcd", "A-3", 0.000001)
        assert "gclid" not in sent[2]


async def test_a_known_conversion_is_restated_with_its_new_value() -> None:
    async with google() as rig:
        await rig.to("upload_conversions", [rig.conversion(1, 10_000_000), rig.conversion(2, 10_000_000)])
        again = [rig.conversion(1, 12_000_000), rig.conversion(3, 1_000_000), rig.conversion(2, 10_000_000)]
        assert told(await rig.to("upload_conversions", again)) == [
            ("accepted", "RESTATED"),
            ("accepted", ""),
            ("accepted", "KNOWN_ALREADY"),
        ]
        assert {name: order.value for name, order in rig.sandbox.uploads.orders.items()} == {
            "order-1": 12.0,
            "order-2": 10.0,
            "order-3": 1.0,
        }
        (body,) = rig.asked(":uploadConversionAdjustments")
        assert body["conversionAdjustments"][0] == {
            "conversionAction": f"customers/1234567890/conversionActions/{ACTION}",
            "adjustmentType": "RESTATEMENT",
            "orderId": "order-1",
            "adjustmentDateTime": "2026-06-01 12:00:00+00:00",
            "restatementValue": {"adjustedValue": 12.0, "currencyCode": "USD"},
        }


async def test_a_restatement_that_is_too_early_or_fails_is_not_called_done() -> None:
    async with google() as rig:
        await rig.to("upload_conversions", [rig.conversion(1, 10_000_000)])
        rig.faults.order(Fault.FAILED, path=":uploadConversionAdjustments")
        too_early = ("unknown", "conversionAdjustmentUploadError.TOO_RECENT_CONVERSION")
        assert told(await rig.to("upload_conversions", [rig.conversion(1, 11_000_000)])) == [too_early]
        for fault, receipt in (
            (Fault.LOST, ("unknown", "NO_ANSWER")),
            (Fault.ERROR, ("unknown", "NO_ANSWER")),
            (Fault.THROTTLED, ("rejected", "RATE_LIMITED")),
        ):
            rig.faults.order(fault, path=":uploadConversionAdjustments")
            assert told(await rig.to("upload_conversions", [rig.conversion(1, 12_000_000)])) == [receipt]


async def test_many_conversions_go_in_parts() -> None:
    async with google() as rig:
        many = [rig.conversion(number, 1_000_000) for number in range(2_500)]
        assert set(told(await rig.to("upload_conversions", many))) == {("accepted", "")}
        assert [len(body["conversions"]) for body in rig.asked(":uploadClick")] == [2_000, 500]
        more = [rig.conversion(number, 1_000_000) for number in range(3_000, 5_500)]

        def fails_at_the_second(path: str, said: Any) -> Any:
            return (500, {}, b"") if ":uploadClick" in path and len(rig.asked(":uploadClick")) == 3 else said

        rig.alter[:] = [fails_at_the_second]
        receipts = await rig.to("upload_conversions", more)
        assert told(receipts) == [("accepted", "")] * 2_000 + [("unknown", "NO_ANSWER")] * 500


async def test_an_upload_without_an_action_is_refused_before_it_is_sent() -> None:
    async with google(conversion_action="") as rig:
        with pytest.raises(Rejected) as caught:
            await rig.to("upload_conversions", [rig.conversion(1, 10**6)])
        assert caught.value.reason == "NO_ACTION"
        assert rig.asked(":upload") == []
