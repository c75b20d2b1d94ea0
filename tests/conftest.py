"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a slow or busy machine fails no test
settings.load_profile("any machine")
