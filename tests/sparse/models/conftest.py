"""A disk that is full, or stands for one."""

import resource
from contextlib import contextmanager

import pytest


@pytest.fixture
def file_size_limit():
    """``with file_size_limit(bytes)``: files cannot grow beyond it, so that writes fail in the midst."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
