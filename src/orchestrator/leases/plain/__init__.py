"""The plain case, which most are: one read without locks, a judgement, and one guarded write that commits by itself.

Whatever the guard did not let through, and whatever needs more than this, is judged anew in a transaction, by
`leases.claims` and `leases.service`, which know everything. Docs: docs/decisions/0031-read-judge-guarded-write.md.
"""
