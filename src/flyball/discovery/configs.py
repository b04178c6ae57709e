"""The scrape configuration in force: the default jobs and what the operator generated."""

import base64
import gzip
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyball.discovery.defaults import KUBELET_JOB, default_scrape_configs
from flyball.errors import ConfigError
from flyball.kube import Informer, KubeClient
from flyball.kube.config import SERVICE_ACCOUNT_DIR
from flyball.kube.kinds import SECRETS
from flyball.model.scrapeconfigs import RelabelConfig, ScrapeConfig, parse_scrape_configs

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SECRET_NAME = "flyball-scrape-config"
SECRET_KEY = "prometheus.yaml.gz"


CADVISOR_PATH = "/metrics/cadvisor"
# The same figures under the same names would count twice in every sum.
_NO_CONTAINERS = RelabelConfig(source_labels=("__name__",), regex="container_.+", action="drop")


class GeneratedJobs:
    """Watches the Secret that the operator writes; one that cannot be read leaves in force what was."""

    def __init__(self, client: KubeClient, namespace: str = NAMESPACE) -> None:
        self._namespace = namespace
        self._informer: Informer[dict[str, Any]] = Informer(
            client, SECRETS, namespace, field_selector=f"metadata.name={SECRET_NAME}"
        )

    async def run(self, changed: Callable[[list[ScrapeConfig]], object]) -> None:
        """Calls ``changed`` with its jobs after each change."""
        self._informer.add_handler(lambda _change, _old, new: self._read(new, changed))
        await self._informer.run()

    def _read(self, secret: dict[str, Any] | None, changed: Callable[[list[ScrapeConfig]], object]) -> None:
        jobs: list[ScrapeConfig] = []
        metadata = (secret or {}).get("metadata") or {}
        if secret is not None and metadata.get("name") == SECRET_NAME:
            try:
                packed = base64.b64decode((secret.get("data") or {}).get(SECRET_KEY, ""))
                jobs, errors = parse_scrape_configs(gzip.decompress(packed).decode())
            except (ConfigError, ValueError, OSError, EOFError) as exc:
                log.warning("scrape_config_refused secret=%s/%s error=%s", self._namespace, SECRET_NAME, exc)
                return
            for error in errors:
                log.warning("scrape_job_refused error=%s", error)
        changed(jobs)


class ScrapeConfigs:
    """The operator's jobs joined to the default ones.

    A job of the Secret with a default job's name replaces it. What a job reads from the place where a pod finds its
    service account is read from ``pki_dir``: no pod scrapes here.
    """

    def __init__(self, client: KubeClient, node_port: int, pki_dir: Path) -> None:
        self._defaults, self._pki_dir = default_scrape_configs(node_port, pki_dir), pki_dir
        self._generated = GeneratedJobs(client)

    async def run(self, changed: Callable[[list[ScrapeConfig]], object]) -> None:
        """Calls ``changed`` with every job: the defaults at once, and all of them after each change."""
        changed(list(self._defaults))
        await self._generated.run(lambda jobs: changed(self._joined(jobs)))

    def _joined(self, jobs: list[ScrapeConfig]) -> list[ScrapeConfig]:
        names = {job.job_name for job in jobs}
        defaults = [job for job in self._defaults if job.job_name not in names]
        if any(job.metrics_path == CADVISOR_PATH for job in jobs):
            defaults = [
                replace(job, metric_relabel_configs=(_NO_CONTAINERS,)) if job.job_name == KUBELET_JOB else job
                for job in defaults
            ]
        return [*defaults, *(self._as_here(job) for job in jobs)]

    def _as_here(self, job: ScrapeConfig) -> ScrapeConfig:
        def here(path: str) -> str:
            return str(self._pki_dir / Path(path).name) if Path(path).parent == SERVICE_ACCOUNT_DIR else path

        http = job.http
        if http.authorization is not None:
            file = here(http.authorization.credentials_file)
            http = replace(http, authorization=replace(http.authorization, credentials_file=file))
        if http.tls is not None:
            http = replace(http, tls=replace(http.tls, ca_file=here(http.tls.ca_file)))
        return replace(job, http=http)
