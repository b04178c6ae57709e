"""What the official Python client and lightkube see of the embedded server, they see of a real one."""

from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest
from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.localcluster_apiserver.test_witnesses import *  # noqa: F403 - the same tests, against another server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("witness")
    with real_control_plane(directory) as cluster:
        path = directory / "witness.kubeconfig"
        write_kubeconfig(path, cluster.base, cluster.token, cluster.ca)
        with kubernetes.config.new_client_from_config(str(path)) as client:  # as kube-controller-manager would
            account = {"metadata": {"name": "default"}}
            kubernetes.client.CoreV1Api(client).create_namespaced_service_account("default", account)
        yield path
