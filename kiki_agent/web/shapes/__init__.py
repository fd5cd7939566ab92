"""What requests may carry and what answers look like: pydantic models, the source of validation and /openapi.json.

No logic beyond validation, no service, no HTTP.
"""
