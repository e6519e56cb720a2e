"""One distributed service for the module that asks for it; starting one takes half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.cluster import Cluster, cluster


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two API processes, two workers, a scheduler."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made
