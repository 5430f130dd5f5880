"""Fakes for time and for faults; everything else in the tests is real."""
