"""The fault kit: what breaks an agent on purpose, and what counts afterwards whether anything was lost.

A proxy that does to HTTP what bad networks do, processes that are killed at the worst moment, disks that forget what
was not synced, clocks that jump, and the audit that compares a ledger with the platforms' own logs of effects. For
this project's tests and for authors of plugins. Nothing here decides about money, and the agent imports none of it.
"""
