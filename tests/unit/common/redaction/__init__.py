"""Hiding secrets."""
