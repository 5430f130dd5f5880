"""Rules about work: what may run, and who must approve it. Read from TOML, decided purely, by both sides alike."""
