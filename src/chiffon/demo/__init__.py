"""The demonstration: real work on two agents of this machine, shown live and then summed up."""
