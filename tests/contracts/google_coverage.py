"""The table of what is checked of Google's contract, made from what was sent.

`python -m tests.contracts.google_coverage` writes it into the documentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .google_mutations import Kind

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts.md"
BEGIN, END = "<!-- google:begin -->", "<!-- google:end -->"
SCHEMA, NAMES, READING = "schema-checked", "names-checked", "our reading"

OPERATIONS = {
    "/googleAds:search": (
        "campaigns, ad groups, account, performance, custom parameters, change history",
        SCHEMA,
        SCHEMA,
    ),
    "/googleAds:searchStream": ("spend", SCHEMA, SCHEMA),
    "/campaignBudgets:mutate": ("daily budgets, shared ones too", SCHEMA, SCHEMA),
    "/campaigns:mutate": ("status, click ceiling, target ROAS, custom parameters", SCHEMA, SCHEMA),
    "/biddingStrategies:mutate": ("click ceiling and target ROAS of portfolios", SCHEMA, SCHEMA),
    "/adGroups:mutate": ("click bids by hand", SCHEMA, SCHEMA),
    ":uploadClickConversions": ("conversions with their value", SCHEMA, SCHEMA),
    ":uploadConversionAdjustments": ("restated values", READING, READING),
}
"""Path -> what for, how the request is checked, how the answer is."""
OTHERS = (
    ("access token (`/token`)", "request and answer", READING, "the public client library and its samples"),
    ("headers", "authorization, developer token, manager account", READING, "the public client library"),
    ("query language", "names of resources and fields, values of enums", NAMES, "against the messages of a row"),
    ("query language", "grammar, which fields go together, limits of the history", READING, "the vendor's pages"),
    ("field masks", "every path exists, can be set, and is what the body sets", NAMES, "against the resource"),
    ("resource names", "collection and customer", READING, "the vendor's pages"),
    ("error envelope", "`google.rpc.Status`, `GoogleAdsFailure`, every error code", SCHEMA, "in both directions"),
    ("error envelope", "`BadRequest` of the gateway, HTML pages", READING, "public issue threads"),
    ("partial failure", "status, failures, index of the operation", SCHEMA, "the index is our reading"),
    ("restated values", "path and error codes", SCHEMA, "the messages are not in the file: v25 prototypes"),
    ("quotas", "error codes and `retryDelay`", SCHEMA, "the numbers are our reading"),
)


def table(kinds: Sequence[Kind], refused: Counter[str]) -> str:
    """Markdown between the markers: operations, kinds of requests sent, and wrong ones that both refuse."""
    sent = Counter(kind.rest for kind in kinds)
    lines = [
        "Requests and answers against the schema of v26. Wrong requests are made by rule of each kind of request: each"
        " field removed, renamed and of each other type, read-only fields, masks, oneofs, values and queries; the last"
        " column counts those that the schema and the stand-in both refuse, and none is taken by either. What Google"
        " itself takes is excused by name. Answers are made wrong the same way, and the judge of answers refuses each.",
        "",
        "| operation | for | request | answer | kinds sent | wrong ones refused |",
        "|---|---|---|---|---|---|",
    ]
    for rest in sorted(OPERATIONS):
        purpose, request, answer = OPERATIONS[rest]
        lines.append(f"| `{rest}` | {purpose} | {request} | {answer} | {sent[rest]} | {refused[rest]:,} |")
    lines += [
        f"| all | | | | {sum(sent.values())} | {sum(refused.values()):,} |",
        "",
        "| beside them | what | level | against |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {what} | {level} | {against} |" for name, what, level, against in OTHERS]
    return "\n".join(lines)


def written() -> str:
    """What the documentation says now."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write(made: str) -> None:
    """Put the table into the documentation."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    import asyncio

    from .google_judging import judge_all, refused_by_both
    from .google_mutations import kinds
    from .google_rig import drive, exchanges_of

    found = kinds(exchanges_of(asyncio.run(drive())))
    write(table(found, refused_by_both(asyncio.run(judge_all(found)))))
