"""How unit tests try random examples: as often as hypothesis does, in whatever time that takes on a busy machine."""

from hypothesis import settings

from tests.fuzz.bounds import bounded

settings.register_profile("unit", bounded(100))
settings.load_profile("unit")
