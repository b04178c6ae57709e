"""Two adapters side by side: what ours does not know is asked of the one behind it."""

import asyncio
from pathlib import Path

import pytest

from flyball.adapter.onward import Onward, OnwardFlags
from flyball.errors import ConfigError, KubeApiError

from .test_deployment import CONFIG, PODS, series
from .world import Prometheus, pod, world

OTHER = CONFIG.replace("requests_total", "hits_total").replace("queue_length", "backlog")


def both(prometheus: Prometheus) -> None:
    series(prometheus)
    prometheus.counter({"__name__": "hits_total", "namespace": "default", "pod": "web-1"}, 3)


def test_unknown_metrics_are_asked_behind_and_a_dead_one_blocks_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "behind", OTHER, objects=[pod("web-1", app="web")], series=both) as behind:
            flags = OnwardFlags(
                f"https://127.0.0.1:{behind.adapter_port}",
                str(behind.directory / "certs" / "ca.crt"),
                str(behind.pki("token")),
            )
            pods = [pod("web-1", app="web"), pod("web-2", app="web")]
            async with world(tmp_path / "front", CONFIG, objects=pods, series=series, onward=flags) as found:
                hits = PODS.replace("/requests?", "/hits?")
                body = await found.until(lambda: found.get(hits))
                assert [item["value"] for item in body["items"]] == ["3"]
                assert [i["value"] for i in (await found.until(lambda: found.get(PODS)))["items"]] == ["1500m", "4"]

                async def listed() -> bool:
                    answer = await found.get("/apis/custom.metrics.k8s.io/v1beta2")
                    names = [item["name"] for item in answer["resources"]]
                    return names == ["namespaces/requests", "pods/requests", "namespaces/hits", "pods/hits"]

                await found.until(listed)
                with pytest.raises(KubeApiError, match="could not find the metric nothing"):
                    await found.get(PODS.replace("/requests?", "/nothing?"))
                await behind.stop()

                async def dead() -> bool:
                    try:
                        return not await found.get(hits)
                    except KubeApiError as exc:
                        return exc.code == 500 and "does not answer" in str(exc)

                await found.until(dead)
                assert (await found.get(PODS))["items"]
                assert (await found.get("/apis/custom.metrics.k8s.io/v1beta2"))["resources"]

    (tmp_path / "behind").mkdir()
    (tmp_path / "front").mkdir()
    asyncio.run(main())


def test_the_token_travels_over_tls_only() -> None:
    with pytest.raises(ConfigError, match="use https"):
        Onward(OnwardFlags("http://adapter.example"))
