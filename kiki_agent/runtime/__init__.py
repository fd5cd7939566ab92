"""What keeps any long-lived process honest: clocks, loops and the drivers that tick them, supervision, logs, metrics.

Nothing here knows about ads, money, plugins or databases. Only `clock.py` and `driver.py` may touch wall time or sleep;
everything above receives its time as an argument, which is what makes a backtest the same program as the live agent.
"""
