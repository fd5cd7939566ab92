"""Tests of the HTTP side: real sockets, a real browser, services that behave like the real ones."""
