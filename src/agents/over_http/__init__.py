"""The queue API in place of a broker: the same agent over HTTP."""
