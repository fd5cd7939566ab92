"""The command line: parse, delegate, answer. Nothing else.

Each command lives in a file of its own, imported when it is called, so that `kiki-agent --help` costs the start of
Python and click and no more. Never here: rules, money, SQL, or any work another part could want to do.
"""

from kiki_agent.cli.root import invoke, main

__all__ = ["invoke", "main"]
