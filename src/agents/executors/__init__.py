"""What can be run: one module for each work type, behind the Protocol in `base`; `registry` names them all."""
