"""Changes as Google takes them: operations with a field mask, checked one by one, done together or in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from kiki_agent.model import Instant, minor_exponent
from kiki_agent.model.money import MICROS
from kiki_agent.sandbox import Change
from kiki_google_ads.sandbox_account import GoogleAccount

MOST_OPERATIONS = 10_000
LARGEST_MICROS = 10**15
Int64 = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,19}\Z")] | int
Double = float | int
Location = list[dict[str, Any]]


class Refused(Exception):
    """One operation, or the whole request, that Google would refuse."""

    def __init__(self, group: str, name: str, message: str, location: Location | None = None) -> None:
        super().__init__(message)
        self.group, self.name, self.message, self.location = group, name, message, location


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class _TargetRoas(_Strict):
    target_roas: Double | msgspec.UnsetType = msgspec.UNSET
    cpc_bid_ceiling_micros: Int64 | msgspec.UnsetType = msgspec.UNSET
    cpc_bid_floor_micros: Int64 | msgspec.UnsetType = msgspec.UNSET


class _TargetSpend(_Strict):
    cpc_bid_ceiling_micros: Int64 | msgspec.UnsetType = msgspec.UNSET


class _Parameter(_Strict):
    key: str
    value: str


class _Budget(_Strict):
    resource_name: str
    amount_micros: Int64 | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class _Strategy(_Strict):
    resource_name: str
    target_roas: _TargetRoas | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class _Campaign(_Strict):
    resource_name: str
    status: str | msgspec.UnsetType = msgspec.UNSET
    target_roas: _TargetRoas | msgspec.UnsetType = msgspec.UNSET
    target_spend: _TargetSpend | msgspec.UnsetType = msgspec.UNSET
    url_custom_parameters: list[_Parameter] | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class _AdGroup(_Strict):
    resource_name: str
    cpc_bid_micros: Int64 | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class _Consent(_Strict):
    ad_user_data: str = "UNSPECIFIED"
    ad_personalization: str = "UNSPECIFIED"


class _Conversion(_Strict):
    conversion_action: str
    conversion_date_time: str
    gclid: str = ""
    conversion_value: Double = 0.0
    currency_code: str = ""
    order_id: str = ""
    consent: _Consent | None = None


class _Conversions(_Strict):
    conversions: list[_Conversion]
    partial_failure: bool
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    """A checked operation: what it does, and the resource it names."""

    resource: str
    change: Change | None
    after: Callable[[], None] | None = None


class Mutator:
    """The services of one account."""

    def __init__(self, account: GoogleAccount) -> None:
        self.account = account
        self.services: Mapping[
            tuple[str, str], Callable[[bytes, Instant, bool], tuple[list[Any], list[Refused], int]]
        ] = {
            ("campaignBudgets", "mutate"): self._service(_Budget, self._budget),
            ("campaigns", "mutate"): self._service(_Campaign, self._campaign),
            ("biddingStrategies", "mutate"): self._service(_Strategy, self._strategy),
            ("adGroups", "mutate"): self._service(_AdGroup, self._ad_group),
            ("", "uploadClickConversions"): self._upload,
        }
        """(service, verb) -> (results, errors of single operations, operations counted); raises Refused."""

    def _service(
        self, shape: type[Any], check: Callable[[Any, Sequence[str]], _Made]
    ) -> Callable[[bytes, Instant, bool], tuple[list[Any], list[Refused], int]]:
        operation = msgspec.defstruct(
            "Operation",
            [("update", shape | None, None), ("update_mask", str, ""), ("create", Any, None), ("remove", str, "")],
            bases=(_Strict,),
            rename="camel",
        )
        request = msgspec.defstruct(
            "Request",
            [("operations", list[operation]), ("partial_failure", bool, False), ("validate_only", bool, False)],  # type: ignore[valid-type]
            bases=(_Strict,),
            rename="camel",
        )
        decoder = msgspec.json.Decoder(request)

        def serve(body: bytes, now: Instant, failed: bool) -> tuple[list[Any], list[Refused], int]:
            asked: Any = _decoded(decoder, body)
            return self._mutate(asked, check, now, failed)

        return serve

    def _mutate(
        self, asked: Any, check: Callable[[Any, Sequence[str]], _Made], now: Instant, failed: bool
    ) -> tuple[list[Any], list[Refused], int]:
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
                    raise Refused(
                        "databaseError", "CONCURRENT_MODIFICATION", "Multiple requests were attempting to modify."
                    )
                done = self._checked(each, check)
                if done.resource in named:
                    raise Refused(
                        "mutateError", "ID_EXISTS_IN_MULTIPLE_MUTATES", f"{done.resource} twice in one request."
                    )
                named.add(done.resource)
                made.append(done)
            except Refused as refusal:
                refusal.location = place + (refusal.location or [])
                errors.append(refusal)
                made.append(None)
        if errors and not asked.partial_failure:
            raise errors[0]
        if asked.validate_only:
            return [], errors, len(asked.operations)
        self.account.desk.change([each.change for each in made if each is not None and each.change is not None], now)
        for each in made:
            if each is not None and each.after is not None:
                each.after()
        return [{"resourceName": each.resource} if each is not None else {} for each in made], errors, len(made)

    @staticmethod
    def _checked(each: Any, check: Callable[[Any, Sequence[str]], _Made]) -> _Made:
        given = [name for name in ("update", "create", "remove") if getattr(each, name)]
        if given != ["update"]:
            if len(given) > 1:
                raise Refused("requestError", "UNKNOWN", "Only one of create, update and remove may be set.")
            if not given:
                raise Refused("requestError", "OPERATION_REQUIRED", "The operation is missing.")
            raise Refused("mutateError", "MUTATE_NOT_ALLOWED", "This account takes updates only.")
        mask = each.update_mask.split(",") if each.update_mask else []
        if not mask:
            raise Refused("fieldMaskError", "FIELD_MASK_MISSING", "The field mask must be provided for update.")
        return check(each.update, mask)

    # -- services ---------------------------------------------------------------------------------------------------

    def _budget(self, update: _Budget, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "campaignBudgets")
        _allow(mask, ("amountMicros", "name"))
        if "amountMicros" not in mask:
            return _Made(update.resource_name, None)
        amount = _int64(update.amount_micros, "amountMicros")
        if amount < 0:
            raise Refused("campaignBudgetError", "NEGATIVE_MONEY_AMOUNT", "A budget is not negative.")
        if amount > LARGEST_MICROS:
            raise Refused("campaignBudgetError", "MONEY_AMOUNT_TOO_LARGE", "The amount is too large.")
        if amount % self._unit():
            text = "The amount is not a multiple of the minimum unit of the currency."
            raise Refused("campaignBudgetError", "NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT", text)
        if amount < self._unit():
            raise Refused("campaignBudgetError", "BUDGET_BELOW_PER_DAY_MINIMUM", "The budget is below the minimum.")
        members = self.account.members(index)
        first = min(members or (index,))
        return _Made(update.resource_name, Change(first, "set_budget", amount, members=members))

    def _campaign(self, update: _Campaign, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "campaigns")
        _allow(
            mask,
            ("status", "name", "urlCustomParameters", "targetSpend.cpcBidCeilingMicros", "targetRoas.targetRoas"),
            whole=("targetSpend", "targetRoas"),
        )
        change: Change | None = None
        after: Callable[[], None] | None = None
        if "status" in mask:
            if update.status not in ("ENABLED", "PAUSED"):
                raise Refused("requestError", "INVALID_ENUM_VALUE", f"Enum value {update.status!r} cannot be used.")
            change = Change(index, "set_status", int(update.status == "ENABLED"))
        if "targetSpend.cpcBidCeilingMicros" in mask:
            if self.account.strategy(index) != "TARGET_SPEND":
                raise Refused("biddingError", "BIDDING_STRATEGY_TRANSITION_NOT_ALLOWED", "The strategy is another one.")
            ceiling = update.target_spend.cpc_bid_ceiling_micros if update.target_spend else msgspec.UNSET
            change = Change(index, "adjust_bid", self._bid(ceiling))
        if "targetRoas.targetRoas" in mask:
            raise Refused("biddingError", "BIDDING_STRATEGY_TRANSITION_NOT_ALLOWED", "The strategy is another one.")
        if "urlCustomParameters" in mask:
            given = update.url_custom_parameters or []
            _check_parameters(given)
            values = [{"key": each.key, "value": each.value} for each in given]
            after = lambda: self.account.parameters.update({index: values})  # noqa: E731
        return _Made(update.resource_name, change, after)

    def _strategy(self, update: _Strategy, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "biddingStrategies")
        known = ("targetRoas.cpcBidCeilingMicros", "targetRoas.targetRoas", "targetRoas.cpcBidFloorMicros", "name")
        _allow(mask, known, whole=("targetRoas",))
        target = update.target_roas or _TargetRoas()
        change: Change | None = None
        after: Callable[[], None] | None = None
        if "targetRoas.cpcBidCeilingMicros" in mask:
            change = Change(index, "adjust_bid", self._bid(target.cpc_bid_ceiling_micros))
        if "targetRoas.targetRoas" in mask:
            ratio = target.target_roas
            if ratio is msgspec.UNSET or not isinstance(ratio, float | int):
                raise Refused("fieldError", "REQUIRED", "The required field was not present: targetRoas")
            if not 0.01 <= ratio <= 1000:
                name = "TOO_LOW" if ratio < 0.01 else "TOO_HIGH"
                raise Refused("rangeError", name, "A target ROAS is between 0.01 and 1000.")
            value = float(ratio)
            after = lambda: self.account.roas.__setitem__(index, value)  # noqa: E731
        return _Made(update.resource_name, change, after)

    def _ad_group(self, update: _AdGroup, mask: Sequence[str]) -> _Made:
        index = self._found(update.resource_name, "adGroups")
        _allow(mask, ("cpcBidMicros", "name"))
        if "cpcBidMicros" not in mask:
            return _Made(update.resource_name, None)
        bid = self._bid(update.cpc_bid_micros)
        number = int(update.resource_name.rpartition("/")[2])
        # the market has one bid per campaign: its first ad group moves it, the others follow
        lever = Change(index, "adjust_bid", bid) if (number - 90_000_001) % 2 == 0 else None
        return _Made(update.resource_name, lever)

    def _upload(self, body: bytes, now: Instant, failed: bool) -> tuple[list[Any], list[Refused], int]:
        asked: _Conversions = _decoded(msgspec.json.Decoder(_Conversions), body)
        if not asked.partial_failure:
            raise Refused("fieldError", "INVALID_VALUE", "partialFailure must be true for uploads.")
        results: list[Any] = []
        errors: list[Refused] = []
        for index, each in enumerate(asked.conversions):
            try:
                if failed:
                    raise Refused("conversionUploadError", "TOO_RECENT_EVENT", "The event is too recent.")
                self._check_conversion(each)
            except Refused as refusal:
                refusal.location = [{"fieldName": "conversions", "index": index}]
                errors.append(refusal)
                results.append({})
                continue
            if not asked.validate_only:
                self.account.orders.add(each.order_id)
            results.append(
                {
                    "gclid": each.gclid,
                    "conversionAction": each.conversion_action,
                    "conversionDateTime": each.conversion_date_time,
                }
            )
        return ([] if asked.validate_only else results), errors, len(asked.conversions)

    def _check_conversion(self, each: _Conversion) -> None:
        prefix = f"customers/{self.account.customer}/conversionActions/"
        if not each.conversion_action.removeprefix(prefix).isdecimal():
            raise Refused("conversionUploadError", "NO_CONVERSION_ACTION_FOUND", "The conversion action is not known.")
        if not each.gclid or len(each.gclid) < 4:
            raise Refused("conversionUploadError", "UNPARSEABLE_GCLID", "The click id could not be read.")
        if len(each.conversion_date_time) != 25 or each.conversion_date_time[10] != " ":
            raise Refused("stringFormatError", "INVALID_FORMAT", "A time is yyyy-mm-dd hh:mm:ss+|-hh:mm.")
        if each.order_id and each.order_id in self.account.orders:
            raise Refused("conversionUploadError", "ORDER_ID_ALREADY_IN_USE", "The order id was used before.")
        allowed = {"UNSPECIFIED", "GRANTED", "DENIED"}
        if each.consent is not None and not {each.consent.ad_user_data, each.consent.ad_personalization} <= allowed:
            raise Refused("requestError", "INVALID_ENUM_VALUE", "The consent is no value of its enum.")

    # -- checks -----------------------------------------------------------------------------------------------------

    def _found(self, name: str, kind: str) -> int:
        if len(name.split("/")) != 4:
            raise Refused("requestError", "RESOURCE_NAME_MALFORMED", f"Resource name {name[:80]!r} is malformed.")
        index = self.account.find(name, kind)
        if index is None:
            raise Refused("mutateError", "RESOURCE_NOT_FOUND", f"Resource {name[:80]!r} was not found.")
        return index

    def _unit(self) -> int:
        return int(MICROS // 10 ** minor_exponent(self.account.currency))

    def _bid(self, given: Any) -> int:
        bid = _int64(given, "cpcBidCeilingMicros")
        if bid < self._unit():
            raise Refused("biddingError", "BID_TOO_SMALL", "The bid is below the minimum.")
        if bid > LARGEST_MICROS:
            raise Refused("biddingError", "BID_TOO_BIG", "The bid is above the maximum.")
        if bid % self._unit():
            raise Refused(
                "biddingError", "BID_TOO_MANY_FRACTIONAL_DIGITS", "The bid is no multiple of the billable unit."
            )
        return bid


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("requestError", "UNKNOWN", f"Invalid JSON payload received. {error}"[:300]) from None


def _allow(mask: Sequence[str], known: Sequence[str], whole: Sequence[str] = ()) -> None:
    """Refuse what a mask may not hold: unknown fields, and messages as a whole where single fields are meant."""
    for path in mask:
        if path in whole:
            raise Refused("fieldMaskError", "FIELD_HAS_SUBFIELDS", f"The field mask path {path!r} has subfields.")
        if path not in known:
            raise Refused(
                "fieldMaskError", "FIELD_NOT_FOUND", f"The field mask contained an invalid field: {path[:60]!r}."
            )


def _int64(given: Any, name: str) -> int:
    if given is msgspec.UNSET:
        raise Refused("fieldError", "REQUIRED", f"The required field was not present: {name}")
    value = int(given)
    if not -(2**63) <= value < 2**63:
        raise Refused("requestError", "UNKNOWN", f"Invalid JSON payload received. {name} is out of range.")
    return value


def _check_parameters(given: Sequence[_Parameter]) -> None:
    """At most 8 parameters; keys of up to 16 letters and digits, values of up to 250 bytes (Google Ads help)."""
    if len(given) > 8:
        raise Refused("urlFieldError", "URL_CUSTOM_PARAMETERS_COUNT_EXCEEDS_LIMIT", "Too many custom parameters.")
    for each in given:
        if not each.key.isalnum() or not each.key.isascii() or len(each.key) > 16:
            raise Refused("urlFieldError", "INVALID_CHARACTERS_IN_URL_CUSTOM_PARAMETER_KEY", each.key[:20])
        if len(each.value.encode()) > 250:
            raise Refused("stringLengthError", "TOO_LONG", f"The value of {each.key} is too long.")
