"""The HTTP edge: errors, pages, limits and health. The only place that knows status codes."""
