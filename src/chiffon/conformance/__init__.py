"""The conformance kit: does a worker, in whatever language, keep the contract of the queue API?

A proxy stands between the worker and a real server. It records what they say to each other, and loses, delays and
refuses on purpose. Each case is judged by that record, by the ledger, and by what the work itself left behind.
"""
