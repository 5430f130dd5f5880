"""The broker contract (`base`), its names (`topology`), and one module for each backend; `connect` picks by URL."""
