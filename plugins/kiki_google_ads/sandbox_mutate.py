"""Changes as Google takes them: operations with a field mask, checked one by one, done together or in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from kiki_agent.model import Instant, minor_exponent
from kiki_agent.model.money import MICROS
from kiki_agent.sandbox import Change
from kiki_google_ads import sandbox_wire as wire
from kiki_google_ads.sandbox_account import Event, GoogleAccount
from kiki_google_ads.sandbox_wire import Location, Refused

MOST_OPERATIONS = 10_000
LARGEST_MICROS = 10**15
SCHEMES = {
    "targetRoas": "target_roas",
    "maximizeConversionValue": "maximize_conversion_value",
    "targetSpend": "target_spend",
}
"""Name of a strategy's field in a mask -> attribute."""

Service = Callable[[bytes, Instant, bool, Callable[[int], None]], tuple[list[Any], list[Refused]]]
"""(body, now, whether everything fails, what counts operations) -> (results, errors of single operations).

Raises Refused and Malformed; counting raises when the quota is used up, and then nothing is done.
"""


@dataclass(frozen=True, slots=True)
class _Made:
    """A checked operation: what it does, and the resource it names."""

    resource: str
    change: Change | None = None
    after: Callable[[], None] | None = None
    event: Event | None = None


class Mutator:
    """The services of one account that change resources."""

    def __init__(self, account: GoogleAccount) -> None:
        self.account = account
        self.unit = int(MICROS // 10 ** minor_exponent(account.currency))
        """The billable unit, micros."""
        self.services: Mapping[tuple[str, str], Service] = {
            ("campaignBudgets", "mutate"): self._service(wire.Budget, self._budget),
            ("campaigns", "mutate"): self._service(wire.Campaign, self._campaign),
            ("biddingStrategies", "mutate"): self._service(wire.Strategy, self._strategy),
            ("adGroups", "mutate"): self._service(wire.AdGroup, self._ad_group),
        }
        """By service and verb."""

    def _service(self, shape: type[Any], check: Callable[[Any, Sequence[str]], _Made]) -> Service:
        operation = msgspec.defstruct(
            "Operation",
            [("update", shape | None, None), ("update_mask", str, ""), ("create", Any, None), ("remove", str, "")],
            bases=(wire.Strict,),
            rename="camel",
        )
        request = msgspec.defstruct(
            "Request",
            [
                ("operations", list[operation], msgspec.field(default_factory=list)),  # type: ignore[valid-type]
                ("partial_failure", bool, False),
                ("validate_only", bool, False),
            ],
            bases=(wire.Strict,),
            rename="camel",
        )
        decoder = msgspec.json.Decoder(request)

        def serve(
            body: bytes, now: Instant, failed: bool, count: Callable[[int], None]
        ) -> tuple[list[Any], list[Refused]]:
            asked: Any = wire.decoded(decoder, body)
            count(len(asked.operations))
            return self._mutate(asked, check, now, failed)

        return serve

    def _mutate(
        self, asked: Any, check: Callable[[Any, Sequence[str]], _Made], now: Instant, failed: bool
    ) -> tuple[list[Any], list[Refused]]:
        if not asked.operations:
            raise Refused("requestError", "REQUIRED_FIELD_MISSING", "Required field is missing: operations")
        if len(asked.operations) > MOST_OPERATIONS:
            raise Refused("requestError", "TOO_MANY_MUTATE_OPERATIONS", "Too many operations in one request.")
        made: list[_Made | None] = []
        errors: list[Refused] = []
        named: set[str] = set()
        for index, each in enumerate(asked.operations):
            place: Location = [{"fieldName": "operations", "index": index}]
            try:
                if failed:
                    text = "Multiple requests were attempting to modify."
                    raise Refused("databaseError", "CONCURRENT_MODIFICATION", text)
                done = self._checked(each, check)
                if done.resource in named:
                    text = f"{done.resource} twice in one request."
                    raise Refused("mutateError", "ID_EXISTS_IN_MULTIPLE_MUTATES", text)
                named.add(done.resource)
                made.append(done)
            except Refused as refusal:
                refusal.location = place + (refusal.location or [])
                errors.append(refusal)
                made.append(None)
        if errors and not asked.partial_failure:
            raise errors[0]
        if asked.validate_only:
            return [], errors
        done_ones = [each for each in made if each is not None]
        self.account.desk.change([each.change for each in done_ones if each.change is not None], now)
        for each in done_ones:
            if each.after is not None:
                each.after()
            if each.event is not None:
                self.account.note(each.event, now)
        return [{"resourceName": each.resource} if each is not None else {} for each in made], errors

    @staticmethod
    def _checked(each: Any, check: Callable[[Any, Sequence[str]], _Made]) -> _Made:
        given = [name for name in ("update", "create", "remove") if getattr(each, name)]
        if len(given) > 1:
            raise wire.Malformed(given[1], "Only one of create, update and remove may be set.")
        if not given:
            raise Refused("requestError", "OPERATION_REQUIRED", "The operation is missing.")
        if given != ["update"]:
            raise Refused("mutateError", "MUTATE_NOT_ALLOWED", "This account takes updates only.")
        if not each.update.resource_name:
            raise Refused("requestError", "RESOURCE_NAME_MISSING", "The resource name is missing.")
        mask = each.update_mask.split(",") if each.update_mask else []
        if not mask:
            raise Refused("fieldMaskError", "FIELD_MASK_MISSING", "The field mask must be provided for update.")
        return check(each.update, mask)

    # -- services ---------------------------------------------------------------------------------------------------

    def _budget(self, update: wire.Budget, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "campaignBudgets")
        _allow(mask, ("amountMicros", "name"))
        if "amountMicros" not in mask:
            return _Made(update.resource_name)
        amount = wire.int64(update.amount_micros, "amountMicros")
        if amount < 0:
            raise Refused("campaignBudgetError", "NEGATIVE_MONEY_AMOUNT", "A budget is not negative.")
        if amount > LARGEST_MICROS:
            raise Refused("campaignBudgetError", "MONEY_AMOUNT_TOO_LARGE", "The amount is too large.")
        if amount % self.unit:
            text = "The amount is not a multiple of the minimum unit of the currency."
            raise Refused("campaignBudgetError", "NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT", text)
        if amount < self.unit:
            raise Refused("campaignBudgetError", "BUDGET_BELOW_PER_DAY_MINIMUM", "The budget is below the minimum.")
        members = self.account.members(index)
        change = Change(min(members or (index,)), "set_budget", amount, members=members)
        event = self.account.budget_event(index, amount)
        return _Made(update.resource_name, change, event=event)

    def _campaign(self, update: wire.Campaign, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "campaigns")
        wire.one_of("campaign_bidding_strategy", update, tuple(SCHEMES.values()))
        bidding = ("targetSpend.cpcBidCeilingMicros", "targetRoas.targetRoas", "maximizeConversionValue.targetRoas")
        portfolio = ("targetRoas.cpcBidCeilingMicros", "maximizeConversionValue.cpcBidCeilingMicros")
        _allow(mask, ("status", "name", "urlCustomParameters", *bidding, *portfolio), whole=tuple(SCHEMES))
        if any(path in mask for path in portfolio):
            text = "A ceiling is for portfolio strategies."
            raise Refused("biddingError", "INVALID_BIDDING_STRATEGY_TYPE", text)
        made = _Made(update.resource_name)
        if "status" in mask:
            if update.status not in ("ENABLED", "PAUSED"):
                raise Refused("requestError", "INVALID_ENUM_VALUE", f"Enum value {update.status!r} cannot be used.")
            active = int(update.status == "ENABLED")
            change = Change(index, "set_status", active)
            made = _Made(update.resource_name, change, event=self.account.status_event(index, active))
        for path in (each for each in bidding if each in mask):
            made = self._campaign_bid(update, index, path)
        if "urlCustomParameters" in mask:
            if update.url_custom_parameters is UNSET:
                raise Refused("fieldError", "REQUIRED", "The required field was not present: urlCustomParameters")
            given = update.url_custom_parameters
            _check_parameters(given)
            values = [{"key": each.key, "value": each.value} for each in given]
            after = lambda: self.account.parameters.update({index: values})  # noqa: E731
            made = _Made(update.resource_name, made.change, after, made.event)
        return made

    def _campaign_bid(self, update: wire.Campaign, index: int, path: str) -> _Made:
        scheme, _, field = path.partition(".")
        if self.account.scheme(index) != scheme or self.account.in_portfolio(index):
            raise Refused("biddingError", "BIDDING_STRATEGY_TRANSITION_NOT_ALLOWED", "The strategy is another one.")
        target = getattr(update, SCHEMES[scheme])
        if field == "cpcBidCeilingMicros":
            bid = self._bid(target.cpc_bid_ceiling_micros if target is not UNSET else UNSET)
            event = self.account.bid_event(index, path, bid)
            return _Made(update.resource_name, Change(index, "adjust_bid", bid), event=event)
        ratio = _checked_ratio(target.target_roas if target is not UNSET else UNSET)
        after = lambda: self.account.roas.__setitem__(index, ratio)  # noqa: E731
        change = Change(index, "adjust_bid", self.account.bid_at(index, ratio, self.unit))
        return _Made(update.resource_name, change, after, self.account.ratio_event(index, path, ratio))

    def _strategy(self, update: wire.Strategy, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "biddingStrategies")
        wire.one_of("scheme", update, tuple(SCHEMES.values()))
        own = self.account.scheme(index)
        known = [f"{own}.cpcBidCeilingMicros", "name"]
        if own != "targetSpend":
            known += [f"{own}.targetRoas", f"{own}.cpcBidFloorMicros"]
        others = [path for path in mask if path.partition(".")[0] in SCHEMES and path.partition(".")[0] != own]
        _allow([path for path in mask if path not in others], known, whole=tuple(SCHEMES))
        if others:
            raise Refused("biddingError", "BIDDING_STRATEGY_TRANSITION_NOT_ALLOWED", "The strategy is another one.")
        target = getattr(update, SCHEMES[own])
        change: Change | None = None
        after: Callable[[], None] | None = None
        if f"{own}.cpcBidCeilingMicros" in mask:
            bid = self._bid(target.cpc_bid_ceiling_micros if target is not UNSET else UNSET)
            change = Change(index, "adjust_bid", bid)
        if f"{own}.targetRoas" in mask:
            ratio = _checked_ratio(target.target_roas if target is not UNSET else UNSET)
            after = lambda: self.account.roas.__setitem__(index, ratio)  # noqa: E731
        return _Made(update.resource_name, change, after)

    def _ad_group(self, update: wire.AdGroup, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "adGroups")
        _allow(mask, ("cpcBidMicros", "name"))
        if "cpcBidMicros" not in mask:
            return _Made(update.resource_name)
        bid = self._bid(update.cpc_bid_micros)
        # the market has one bid per campaign: its first ad group moves it, the others follow
        first = self.account.is_first_group(update.resource_name)
        event = self.account.group_event(index, update.resource_name, bid)
        change = Change(index, "adjust_bid", bid) if first else None
        before = self.account.desk.bid_micros(index)
        after = lambda: self.account.set_group_bid(index, update.resource_name, bid, before)  # noqa: E731
        return _Made(update.resource_name, change, after, event)

    # -- checks -----------------------------------------------------------------------------------------------------

    def _found(self, name: str, kind: str) -> int:
        if len(name.split("/")) != 4:
            raise Refused("requestError", "RESOURCE_NAME_MALFORMED", f"Resource name {name[:80]!r} is malformed.")
        index = self.account.find(name, kind)
        if index is None:
            raise Refused("mutateError", "RESOURCE_NOT_FOUND", f"Resource {name[:80]!r} was not found.")
        return index

    def _bid(self, given: Any) -> int:
        bid = wire.int64(given, "cpcBidCeilingMicros")
        if bid < self.unit:
            raise Refused("biddingError", "BID_TOO_SMALL", "The bid is below the minimum.")
        if bid > LARGEST_MICROS:
            raise Refused("biddingError", "BID_TOO_BIG", "The bid is above the maximum.")
        if bid % self.unit:
            text = "The bid is no multiple of the billable unit."
            raise Refused("biddingError", "BID_TOO_MANY_FRACTIONAL_DIGITS", text)
        return bid


def _checked_ratio(given: Any) -> float:
    if given is UNSET:
        raise Refused("fieldError", "REQUIRED", "The required field was not present: targetRoas")
    if not 0.01 <= given <= 1000:
        raise Refused("rangeError", "TOO_LOW" if given < 0.01 else "TOO_HIGH", "A target ROAS is 0.01 to 1000.")
    return float(given)


def _allow(mask: Sequence[str], known: Sequence[str], whole: Sequence[str] = ()) -> None:
    """Refuse what a mask may not hold: unknown fields, and messages as a whole where single fields are meant."""
    for path in mask:
        if path in whole:
            raise Refused("fieldMaskError", "FIELD_HAS_SUBFIELDS", f"The field mask path {path!r} has subfields.")
        if path not in known:
            text = f"The field mask contained an invalid field: {path[:60]!r}."
            raise Refused("fieldMaskError", "FIELD_NOT_FOUND", text)
    if len(set(mask)) < len(mask):
        raise Refused("fieldMaskError", "FIELD_MASK_NOT_ALLOWED", "A field stands in the mask twice.")


def _check_parameters(given: Sequence[wire.Parameter]) -> None:
    """At most 8 parameters; keys of up to 16 letters and digits, values of up to 250 bytes (Google Ads help)."""
    if len(given) > 8:
        raise Refused("collectionSizeError", "TOO_MANY", "Too many custom parameters.")
    for each in given:
        if not each.key.isalnum() or not each.key.isascii() or len(each.key) > 16:
            raise Refused("urlFieldError", "INVALID_CHARACTERS_IN_URL_CUSTOM_PARAMETER_KEY", each.key[:20])
        if len(each.value.encode()) > 250:
            raise Refused("stringLengthError", "TOO_LONG", f"The value of {each.key} is too long.")
