"""The same agent under simulated time, on the sandbox market in process, and the report of what it did.

Nothing here decides anything: loops, shield, ledger and plugins are the live agent's own, down to the bytes of each
request. Never imports a second engine.
"""

from kiki_agent.backtest.run import BacktestResult, DayTotals, run_market

__all__ = ["BacktestResult", "DayTotals", "run_market"]
