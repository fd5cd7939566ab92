"""How far each operation at Meta is checked: the table of `docs/contracts.md`, made from what the tests hold it to."""

from __future__ import annotations

from pathlib import Path

NAMES, READING = "names-checked", "our reading"
PAGE = Path(__file__).parents[2] / "docs" / "contracts.md"

BEGIN, END = "<!-- meta:begin -->\n", "<!-- meta:end -->"

COVERAGE: dict[str, tuple[str, str, str]] = {
    "account": ("`GET /act_{id}`", NAMES, ""),
    "campaigns": ("`GET /act_{id}/campaigns`", NAMES, "paging by cursors"),
    "ad sets": ("`GET /act_{id}/adsets`", NAMES, "paging by cursors"),
    "insights": (
        "`GET /act_{id}/insights`",
        NAMES,
        "paging; that numbers are text; which of three names counts a purchase",
    ),
    "order a report": ("`POST /act_{id}/insights`", NAMES, "`report_run_id` in the answer"),
    "report": ("`GET /{run}`", NAMES, "the words of `async_status`"),
    "rows of a report": ("`GET /{run}/insights`", NAMES, "paging"),
    "change an ad set": ("`POST /{ad set}`", NAMES, '`{"success": true}`; minor units by Meta\'s currency page'),
    "change a campaign": ("`POST /{campaign}`", NAMES, '`{"success": true}`; minor units by Meta\'s currency page'),
    "batch": ("`POST /`", NAMES, "the envelope; each change inside is names-checked"),
    "activities": (
        "`GET /act_{id}/activities`",
        READING,
        "fields of the vendor's own library; what `extra_data` holds",
    ),
    "events": ("`POST /{pixel}/events`", READING, "Meta's page of server event parameters"),
}
"""Operation -> how it is sent, how it is checked, and what of it rests on prose."""
COMMON = (
    ("access", "`Authorization`, `appsecret_proof`", READING, "Meta's library and page on securing requests"),
    ("errors", "`error` in any answer", READING, "code tables of Meta's pages on errors and rate limits"),
    ("quotas", "`X-Business-Use-Case-Usage`, `X-Ad-Account-Usage`", READING, "Meta's page on rate limits"),
)


def table() -> str:
    """The table, as it stands between the markers."""
    lines = [
        "Meta publishes no schema of requests that says what must be there, so nothing is schema-checked: names,",
        "kinds and enums come from the specification Meta generates its libraries from (v25.0), and every name must",
        "be in the package for v26.0 too. A wrong form of each kind of request (a needed field left out, a name",
        "changed, a value of another kind, a word that is none, another place) is refused by these names and by the",
        "stand-in, in Meta's own envelope of an error; `pytest tests/contracts/test_meta.py -rP` prints how many.",
        "",
        "| operation | sent as | schema-checked | names-checked | our reading |",
        "|---|---|---|---|---|",
    ]
    rows = [(name, *row) for name, row in COVERAGE.items()] + list(COMMON)
    for name, sent, level, prose in rows:
        lines.append(f"| {name} | {sent} | no | {'yes' if level == NAMES else 'no'} | {prose} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with the table put between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
