"""The duties that keep things moving, one file each."""
