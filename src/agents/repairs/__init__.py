"""Repairs of compose services, of which this host owns the end: verified, or rolled back."""
