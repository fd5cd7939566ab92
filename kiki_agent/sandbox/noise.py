"""Noise as a function of (key, tick, stream): no generator, no state, no order of calls.

A 32-bit mixer (multiply-xorshift with the low-bias constants found by Chris Wellons, "Prospecting for hash
functions", 2018; public domain). Its multipliers stay below 2**31, so products of two 32-bit numbers fit a signed
64-bit integer: plain Python and machine code give the same bits.
"""

from __future__ import annotations

STREAMS = 32
"""Independent draws an entity has at one tick."""


def mix(value: int) -> int:
    """Scramble 32 bits into 32 bits, one to one."""
    value ^= value >> 16
    value = (value * 0x21F0AAAD) & 0xFFFFFFFF
    value ^= value >> 15
    value = (value * 0x735A2D97) & 0xFFFFFFFF
    return value ^ (value >> 15)


def draw(key: int, place: int) -> int:
    """32 random bits for an entity's key and a place, which is `tick * STREAMS + stream` (below 2**62)."""
    low = mix((place & 0xFFFFFFFF) ^ key)
    return mix(low ^ (((place >> 32) * 0x1E3779B1) & 0xFFFFFFFF) ^ 0x5BD1E995)


def unit(key: int, place: int) -> float:
    """A number in [0, 1), the same for the same key and place for ever."""
    return draw(key, place) * (1.0 / 4294967296.0)


def wave(key: int, tick: int, span: int, stream: int) -> float:
    """Slow noise in [-1, 1]: random values at every `span` ticks, joined smoothly."""
    node = tick // span
    part = (tick - node * span) / span
    left = unit(key, node * 32 + stream) * 2.0 - 1.0
    right = unit(key, (node + 1) * 32 + stream) * 2.0 - 1.0
    ease = part * part * (3.0 - 2.0 * part)
    return left + (right - left) * ease


def seed_key(seed: int, entity: int) -> int:
    """Key of an entity: 32 bits from a seed of up to 63 bits and the entity's number."""
    high = mix((seed >> 32) & 0xFFFFFFFF ^ 0x2545F491)
    return mix(mix(seed & 0xFFFFFFFF ^ high) ^ mix(entity & 0xFFFFFFFF))
