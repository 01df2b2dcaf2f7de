"""A job and its template become one ResolvedSpec, or a problem told in words."""
