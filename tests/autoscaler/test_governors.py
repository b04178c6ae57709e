"""Governors through the controller: acting, shadow, refusals, and who may write."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from flyball.autoscaler.definition import governor_definition
from flyball.clock import now_ms, parse_rfc3339_ms, rfc3339
from flyball.journal import Journal
from flyball.scaling import Decision, History, Outcome

_path = Path(__file__).with_name("test_autoscaler.py")
_spec = importlib.util.spec_from_file_location("flyball_tests_autoscaler_base", _path)
assert _spec is not None and _spec.loader is not None
base = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = base
_spec.loader.exec_module(base)
journal = base.journal


def governor(name: str = "web", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 20, "metrics": [base.external()]}
    meta = {"namespace": "shop", "name": name, "generation": 1, "creationTimestamp": created}
    return {"metadata": meta, "spec": body | spec}


def cluster(**spec: Any) -> Any:
    fake = base.cluster()
    fake.remove("horizontalpodautoscalers", "shop", "web")
    fake.put("governors", governor(**spec))
    return fake


def scaling_active(fake: Any, name: str = "web") -> dict[str, Any]:
    found = (fake.objects["governors", "shop", name].get("status") or {}).get("conditions") or []
    return next((condition for condition in found if condition["type"] == "ScalingActive"), {})


def test_a_governor_scales_and_tells_its_status(journal: Journal) -> None:
    async def test() -> None:
        fake = cluster(profile="fast")
        async with base.running(fake, journal):
            await base.until(lambda: fake.scale_writes and scaling_active(fake))
            assert fake.scale_writes == [("web", 6)]  # a demand of five replicas and five percent
        status = fake.objects["governors", "shop", "web"]["status"]
        assert status["desiredReplicas"] == 6
        assert (
            status["selector"] == fake.scales["web"]["status"]["selector"]
        )  # by which its pods are scraped more often
        (record,) = journal.decisions("shop", "governor/web")
        assert record.outcome == "" and record.decision.governed is not None and record.decision.governed.demand == 5
        assert ("SuccessfulRescale", "New size: 6; reason: demand of 5.00 replicas") in fake.events

    base.go(test())


def test_a_shadow_decides_beside_an_hpa_and_writes_nothing(journal: Journal) -> None:
    async def test() -> None:
        fake = base.cluster()
        fake.put("governors", governor(shadow=True, profile="fast"))
        async with base.running(fake, journal):
            await base.until(lambda: journal.decisions("shop", "governor/web") and fake.scale_writes)
        assert fake.scale_writes == [("web", 5)]  # the HPA's
        assert journal.decisions("shop", "governor/web")[0].decision.desired >= 5
        assert not scaling_active(fake)

    base.go(test())


def test_a_governor_beside_an_hpa_is_refused_until_that_is_gone(journal: Journal) -> None:
    async def test() -> None:
        fake = base.cluster()
        fake.put("governors", governor(override={"replicas": 9}))
        async with base.running(fake, journal, sync_period_s=0.05):
            await base.until(lambda: scaling_active(fake).get("reason") == "TargetShared")
            assert "HorizontalPodAutoscaler web; delete that, or set spec.shadow" in scaling_active(fake)["message"]
            assert ("web", 9) not in fake.scale_writes
            told = scaling_active(fake)
            assert {**told, "message": "", "lastTransitionTime": ""} == {
                "type": "ScalingActive", "status": "False", "reason": "TargetShared", "message": "",
                "lastTransitionTime": "", "observedGeneration": 1,
            }  # fmt: skip
            assert abs(parse_rfc3339_ms(told["lastTransitionTime"]) - now_ms()) < 60_000
            assert fake.objects["governors", "shop", "web"]["status"]["observedGeneration"] == 1
            fake.remove("horizontalpodautoscalers", "shop", "web")
            await base.until(lambda: ("web", 9) in fake.scale_writes)

    base.go(test())


def test_of_two_governors_the_older_acts(journal: Journal) -> None:
    async def test() -> None:
        fake = cluster(override={"replicas": 7})
        fake.put("governors", governor("second", "2026-02-01T00:00:00Z", override={"replicas": 9}))
        async with base.running(fake, journal):
            await base.until(lambda: fake.scale_writes and scaling_active(fake, "second"))
        assert fake.scale_writes == [("web", 7)]
        assert "older Governor web" in scaling_active(fake, "second")["message"]

    base.go(test())


def test_hpas_are_observed_where_another_controller_acts_on_them(journal: Journal) -> None:
    async def test() -> None:
        fake = base.cluster()
        async with base.running(fake, journal, act_on_hpas=False):
            await base.until(lambda: journal.decisions("shop", "web"))
        assert journal.decisions("shop", "web")[0].decision.desired == 5
        assert (fake.scale_writes, fake.status_writes, fake.events) == ([], 0, [])

    base.go(test())


def test_who_does_not_lead_writes_nothing(journal: Journal) -> None:
    async def test() -> None:
        fake = base.cluster()
        async with base.running(fake, journal, may_write=lambda: False):
            await base.until(lambda: journal.decisions("shop", "web"))
        assert fake.scale_writes == []

    base.go(test())


def test_who_leads_no_more_when_it_would_write_says_nothing(journal: Journal) -> None:
    async def test() -> None:
        fake, led = base.cluster(), iter([True])
        async with base.running(fake, journal, may_write=lambda: next(led, False)):
            await base.until(lambda: any(record.outcome for record in journal.decisions("shop", "web")))
        assert journal.decisions("shop", "web")[0].outcome == "another instance leads now"
        assert (fake.scale_writes, fake.status_writes, fake.events) == ([], 0, [])

    base.go(test())


def test_who_comes_to_lead_knows_what_the_one_before_scaled(journal: Journal) -> None:
    leading: list[bool] = []

    async def test() -> None:
        fake = base.cluster(behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 1800}]}})
        async with base.running(fake, journal, may_write=lambda: bool(leading), sync_period_s=0.02):
            await base.until(lambda: journal.decisions("shop", "web"))
            # the leader: from 3 to 5, all that the policy allows
            fake.scales["web"] = base.scale(replicas=5)
            told = {"currentReplicas": 3, "desiredReplicas": 5, "lastScaleTime": base.wall_clock.rfc3339(now_ms())}
            fake.put("horizontalpodautoscalers", {**fake.hpa(), "status": told})
            fake.answers[base.QUEUE] = base.queue_items("90")
            await base.until(lambda: (journal.load_history("shop", "web") or History()).ups)
            leading.append(True)
            await base.until(lambda: base.condition(fake, "ScalingLimited").get("reason") == "ScaleUpLimit")
        assert fake.scale_writes == []

    base.go(test())


@pytest.mark.parametrize(("outcome", "before"), [("", 5), (None, 3), ("refused", 3)])
def test_what_others_scaled_while_it_was_away_counts(journal: Journal, outcome: str | None, before: int) -> None:
    async def test() -> None:
        now = now_ms()
        last = Decision("shop", "governor/web", now - 40_000, 3, 5, 1, 20, rescale=True)
        record = journal.append_decision(last, History(), "uid-web")
        if outcome is not None:
            journal.outcome(journal.intent(last, record, "uid-web", now - 40_000), Outcome(outcome), now - 40_000)
        fake = cluster(behavior={"scaleUp": {}})
        obj = fake.objects["governors", "shop", "web"]
        fake.put("governors", obj | {"status": {"lastScaleTime": rfc3339(now - 20_000), "desiredReplicas": 9}})
        async with base.running(fake, journal, may_write=lambda: False):
            await base.until(lambda: journal.decisions("shop", "governor/web")[0].decision.at_ms > now - 40_000)
        known = journal.load_history("shop", "governor/web", "uid-web")
        assert known is not None
        assert [(event.change, abs(event.at_ms - now + 20_000) <= 1000) for event in known.ups] == [(9 - before, True)]

    base.go(test())


def test_our_own_last_write_is_not_counted_twice_after_a_restart(journal: Journal) -> None:
    async def test() -> None:
        fake = cluster(behavior={"scaleUp": {}})
        async with base.running(fake, journal):
            await base.until(lambda: fake.objects["governors", "shop", "web"].get("status", {}).get("lastScaleTime"))
        kept = journal.load_history("shop", "governor/web", "uid-web")
        async with base.running(fake, journal) as scaler:
            await base.until(lambda: scaler.statistics()["histories"])
        again = journal.load_history("shop", "governor/web", "uid-web")
        assert kept is not None and again is not None and kept.ups == again.ups and len(kept.ups) == 1

    base.go(test())


def test_a_wrong_governor_is_told_by_field_and_disturbs_no_other(journal: Journal) -> None:
    async def test() -> None:
        fake = base.cluster()
        fake.put("governors", governor("wrong", schedule=[{"start": "@daily", "end": "often", "minReplicas": 2}]))
        async with base.running(fake, journal):
            await base.until(lambda: fake.scale_writes and scaling_active(fake, "wrong"))
        message = next(message for reason, message in fake.events if reason == "InvalidSpec")
        assert message.startswith('spec.schedule[0].end: Invalid value: "often"')
        told = scaling_active(fake, "wrong")
        assert (told["status"], told["reason"], told["message"]) == ("False", "InvalidSpec", message)
        assert told["observedGeneration"] == 1 and told["lastTransitionTime"]
        assert journal.decisions("shop", "governor/wrong")[0].decision.error == message  # and explain has it

    base.go(test())


def test_the_definition_names_every_field_that_is_decoded() -> None:
    version = governor_definition()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert {"profile", "schedule", "forecast", "fallback", "override", "pause", "shadow", "behavior", "metrics"} <= set(
        spec
    )
    assert spec["forecast"]["properties"]["model"]["enum"] == ["holt-winters", "linear"]
    assert version["subresources"] == {"status": {}}


def test_a_pushed_metric_wakes_the_governors_that_read_it(journal: Journal) -> None:
    async def test() -> None:
        fake = cluster(profile="fast")
        async with base.running(fake, journal) as scaler:
            await base.until(lambda: fake.scale_writes)
            fake.answers[base.QUEUE] = base.queue_items("90")
            metric = base.external()["external"]["metric"]["name"]
            scaler.wake_metrics("office", {metric})
            scaler.wake_metrics("shop", {"another"})
            before = scaler.telemetry.wakes._value.get()
            scaler.wake_metrics("shop", {metric})
            scaler.wake_metrics("", {metric})
            assert (before, scaler.telemetry.wakes._value.get()) == (0, 2)
            await base.until(lambda: len(fake.scale_writes) > 1)
        assert fake.scale_writes[-1] == ("web", 10)  # nine and the headroom

    base.go(test())
