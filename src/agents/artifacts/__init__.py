"""Files that work keeps and gets: chosen, copied without secrets, spooled, sent, and asked for."""
