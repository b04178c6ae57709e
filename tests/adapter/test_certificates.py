"""The adapter's own authority: renewed in time, published before it signs, kept by whoever is first."""

import asyncio
import contextlib
import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from flyball.adapter.certificates import DAY_MS, Certificates, DirectoryKeeper, SecretKeeper, keep, renewed
from flyball.http.certificates import Certificate, Pair, authority, certificates_of, is_signed_by, leaf, left_ms
from flyball.kube import KubeClient
from flyball.kube.kinds import SECRETS
from flyball.localcluster import ApiServer

NOW = 1_800_000_000_000
NAMES = ["flyball-adapter.flyball-system.svc", "127.0.0.1"]


def authorities(held: Certificates) -> list[Certificate]:
    return certificates_of(held.authority)


def issuer(held: Certificates) -> int:
    """Which authority of the bundle signed the leaf."""
    (leaf,) = certificates_of(held.certificate)
    return next(index for index, authority in enumerate(authorities(held)) if is_signed_by(leaf, authority))


def test_nothing_changes_before_two_thirds_of_the_life() -> None:
    first = renewed(None, NAMES, NOW)
    assert issuer(first) == 0 and len(authorities(first)) == 1
    assert renewed(first, NAMES, NOW + 50 * DAY_MS) == first


def test_the_leaf_is_renewed_by_the_same_authority_and_for_other_names() -> None:
    first = renewed(None, NAMES, NOW)
    later = renewed(first, NAMES, NOW + 70 * DAY_MS)
    assert later.certificate != first.certificate and later.authority == first.authority and issuer(later) == 0
    moved = renewed(first, [*NAMES, "other.svc"], NOW)
    assert moved.certificate != first.certificate and moved.authority == first.authority


def test_a_new_authority_is_known_to_all_before_it_signs() -> None:
    now = NOW
    held = renewed(None, NAMES, now)
    while len(authorities(held)) == 1:
        now += 20 * DAY_MS
        held = renewed(held, NAMES, now)
    assert issuer(held) == 1  # the old one still; the bundle has both
    after = renewed(held, NAMES, now + 70 * DAY_MS)
    assert issuer(after) == 0 and len(authorities(after)) == 2
    for days in range(0, 2000, 20):  # whatever the day, the leaf verifies and is in its time
        held = renewed(held, NAMES, now + days * DAY_MS)
        issuer(held)
        assert left_ms(certificates_of(held.certificate)[0], now + days * DAY_MS) > 0
        assert len(authorities(held)) <= 3


def test_what_an_authority_signed_verifies_and_nothing_else() -> None:
    ours, other = (authority("ca", 10, NOW) for _ in range(2))
    pair = leaf(ours, "x", 10, NOW, names=["x.svc", "127.0.0.1"])
    assert is_signed_by(pair.certificate, ours.certificate) and not is_signed_by(pair.certificate, other.certificate)
    assert not is_signed_by(ours.certificate, pair.certificate)
    with pytest.raises(ValueError, match="not the certificate's"):
        Pair.of_pem(pair.certificate_pem, other.key_pem)
    at = dt.datetime.fromtimestamp(NOW / 1000, dt.UTC)
    for issuer, good in ((ours, True), (other, False)):
        store = verification.Store([issuer.certificate])
        verifier = verification.PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName("x.svc"))
        with contextlib.nullcontext() if good else pytest.raises(verification.VerificationError):
            verifier.verify(pair.certificate, [])


def test_what_is_damaged_by_hand_is_made_anew(tmp_path: Path) -> None:
    async def main() -> None:
        first = await keep(DirectoryKeeper(tmp_path / "certs"), NAMES, NOW)
        for name in ("ca.crt", "tls.crt"):
            (tmp_path / "certs" / name).write_text("no certificate")
            again = await keep(DirectoryKeeper(tmp_path / "certs"), NAMES, NOW)
            assert again.authority != first.authority and issuer(again) == 0

    asyncio.run(main())


def test_a_directory_keeps_them(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = DirectoryKeeper(tmp_path / "certs")
        first = await keep(keeper, NAMES, NOW)
        assert await keep(DirectoryKeeper(tmp_path / "certs"), NAMES, NOW + DAY_MS) == first
        assert (tmp_path / "certs" / "ca.key").stat().st_mode & 0o077 == 0

    asyncio.run(main())


def test_replicas_share_a_secret_and_the_first_wins(tmp_path: Path) -> None:
    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text((tmp_path / "data/kubeconfig").read_text().replace(":6443", f":{server.port}"))
        try:
            async with await KubeClient.from_kubeconfig(kubeconfig) as client:
                keepers = [SecretKeeper(client, "default", "tls") for _ in range(5)]
                found = await asyncio.gather(*(keep(keeper, NAMES, NOW) for keeper in keepers))
                assert len({item.authority for item in found}) == 1 and len({item.key for item in found}) == 1
                late = await asyncio.gather(*(keep(keeper, NAMES, NOW + 70 * DAY_MS) for keeper in keepers))
                assert len({item.certificate for item in late}) == 1 and late[0].certificate != found[0].certificate
                secret = await client.get(SECRETS, "tls", "default")
                assert secret["type"] == "kubernetes.io/tls"
        finally:
            await server.close()

    asyncio.run(main())
