"""Approvals: people's recorded yes or no to exactly this content, bound to its digest."""
