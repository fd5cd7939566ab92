"""Whether anything may be done with a person's data: consents, consent strings, requests of people about their data.

Personal keys live here in a file of their own, and so does the one place that turns a customer's id into the token all
other rooms use. No bid is decided here, no platform is called, and no row here says what a customer is worth.
"""

from kiki_agent.consent.consents import BID_PURPOSE, DENIED, NOT_PERSONAL, Consents, Vendors
from kiki_agent.consent.privacy import Privacy, PrivacyRequest, RequestType
from kiki_agent.consent.statements import Consent, ConsentType, Source, Status
from kiki_agent.consent.tcf import Why
from kiki_agent.consent.vault import Vault, seeded_entropy

__all__ = [
    "BID_PURPOSE",
    "DENIED",
    "NOT_PERSONAL",
    "Consent",
    "ConsentType",
    "Consents",
    "Privacy",
    "PrivacyRequest",
    "RequestType",
    "Source",
    "Status",
    "Vault",
    "Vendors",
    "Why",
    "seeded_entropy",
]
