"""Handlers: take a checked request, call a service, shape the answer. No rules about money, no SQL, no vendor."""
