"""The cost model: figures by hand, trades, and its signs against measurements."""
