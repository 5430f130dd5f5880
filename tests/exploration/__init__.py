"""The rules of leases, explored exhaustively: every order of messages, crashes and expiries within a bound."""
