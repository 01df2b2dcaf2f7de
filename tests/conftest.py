"""For all tests: Hypothesis judges by what holds, not by how long a busy machine takes."""

from hypothesis import settings

settings.register_profile("project", deadline=None)
settings.load_profile("project")
