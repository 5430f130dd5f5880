"""Hide secrets in whatever leaves the host: known values, and what has the shape of a token.

`forms` says how a value may be written, `shapes` what tokens look like, `words` searches many at once, `known` also
where lines are wrapped, `values` holds what is known, `search` finds it, `stream` hides it in bytes that come in
pieces, `text` in one text, `logs` in the lines that the agent logs.
"""
