"""Drives the agent with the official client, as a user of it would. Run by python_sdk.rs."""

import asyncio
import os
import sys

from unikraft_cloud import REMOVE, UnikraftCloud
from unikraft_cloud.core.errors import (
    AlreadyExistsError,
    NotFoundError,
    UnikraftCloudError,
    WaitTimeoutError,
)

SERVICES = [{"port": 5432, "destination_port": 7000, "protocol": "tcp", "handlers": []}]


async def expect(error, awaitable):
    try:
        result = await awaitable
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised; got {result!r}")


async def services(ukc):
    group = await ukc.services.create(name="web", services=SERVICES)
    assert (group.name, group.persistent) == ("web", True), group
    assert group.services[0].destination_port == 7000, group
    read = await ukc.services.get(name="web")
    assert read.uuid == group.uuid, read
    assert (await ukc.services.get(uuid=group.uuid)).name == "web"
    await expect(
        AlreadyExistsError,
        ukc.services.create(name="web", services=[{**SERVICES[0], "port": 5433}]),
    )
    missing = await expect(NotFoundError, ukc.services.get(name="nope"))
    assert missing.absent, "the client must see that the group is really gone"
    refused = await expect(
        UnikraftCloudError,
        ukc.services.create(services=[{"port": 443, "handlers": ["tls"]}]),
    )
    assert "443" in str(refused), refused


async def editing(ukc):
    web = ukc.services.get(name="web")
    before = await web
    updated = await web.update(hard_limit=10, autokill={"time_ms": 60000})
    assert (updated.uuid, updated.name) == (before.uuid, "web"), updated
    read = await ukc.services.get(name="web")
    assert (read.hard_limit, read.autokill.time_ms) == (10, 60000), read
    more = {**SERVICES[0], "port": 5433}
    edit = web.edit().set(soft_limit=3, autokill=REMOVE).add(services=[more])
    await edit.add(domains=[{"name": "sdk.example.com."}]).apply()
    read = await ukc.services.get(uuid=before.uuid)
    assert sorted(service.port for service in read.services) == [5432, 5433], read
    assert "sdk.example.com" in [domain.fqdn for domain in read.domains], read
    assert (read.soft_limit, read.hard_limit, read.created_at) == (3, 10, before.created_at), read
    assert not read.autokill or not read.autokill.time_ms, read
    # One operation of an edit is wrong, so none of them is done.
    wrong = web.edit().delete(services=[{"port": 5433}]).set(soft_limit=11)
    refused = await expect(UnikraftCloudError, wrong.apply())
    assert "limit" in str(refused), refused
    assert len((await ukc.services.get(name="web")).services) == 2
    edit = web.edit().delete(services=[{"port": 5433}], domains=[{"name": "sdk.example.com."}])
    await edit.set(soft_limit=1, hard_limit=REMOVE).apply()
    read = await ukc.services.get(name="web")
    assert [service.port for service in read.services] == [5432], read
    assert (read.soft_limit, read.hard_limit) == (1, 65535), read
    missing = ukc.services.get(name="nope").update(hard_limit=1)
    await expect(NotFoundError, missing)


async def paging(ukc):
    for number in range(5):
        port = {**SERVICES[0], "port": 6000 + number}
        await ukc.services.create(name=f"page-{number}", services=[port])
    listed = [group.name async for group in ukc.services.list(details=True)]
    assert sorted(listed) == [f"page-{n}" for n in range(5)] + ["web"], listed
    for number in range(5):
        await ukc.services.get(name=f"page-{number}").delete()


async def instances(ukc):
    created = await ukc.instances.create(
        name="one",
        image="external",
        autostart=True,
        service_group={"name": "web"},
        network_interfaces=[{"ip": "10.66.0.11/32"}],
    )
    assert (created.name, created.state) == ("one", "running"), created
    assert created.service_group.name == "web", created
    assert [i.name async for i in ukc.instances.list()] == ["one"]
    attached = await expect(UnikraftCloudError, ukc.services.get(name="web").delete())
    assert "web" in str(attached), attached
    stopped = await ukc.instances.get(name="one").stop()
    assert (stopped.state, stopped.previous_state) == ("stopped", "running"), stopped
    started = await ukc.instances.get(uuid=created.uuid).start()
    assert started.state == "running", started
    one = ukc.instances.get(name="one")
    waiting = asyncio.create_task(wait(one, state="stopped", timeout_seconds=20))
    late = await expect(WaitTimeoutError, one.wait(state="stopped", timeout_seconds=1))
    assert late.state == "running", late
    assert not waiting.done()
    await one.stop()
    assert (await waiting).state == "stopped"
    metrics = await one.metrics()
    assert (metrics.uuid, metrics.name) == (created.uuid, "one"), metrics
    await ukc.instances.get(name="one").delete()
    await expect(NotFoundError, ukc.instances.get(name="one"))


async def wait(handle, **what):
    return await handle.wait(**what)


async def certificates(ukc):
    pem = {"chain": os.environ["TEST_CHAIN"], "pkey": os.environ["TEST_PKEY"]}
    made = await ukc.certificates.create(common_name="sdk.example.com", **pem)
    assert (made.state, made.service_groups) == ("valid", []), made
    assert made.name.startswith("sdk.example.com-"), made
    assert "PRIVATE" not in repr(made), made
    handle = ukc.certificates.get(name=made.name)
    assert (await handle).serial_number == made.serial_number
    assert [one.uuid async for one in ukc.certificates.list()] == [made.uuid]
    assert (await handle.update(**pem)).uuid == made.uuid
    mismatch = await expect(
        UnikraftCloudError, ukc.certificates.create(common_name="a.example.net", **pem)
    )
    assert "a.example.net" in str(mismatch), mismatch
    naming = {"name": "sdk.example.com.", "certificate": {"uuid": made.uuid}}
    raw = {"port": 9443, "protocol": "tcp", "handlers": []}
    group = await ukc.services.create(name="tls", services=[raw], domains=[naming])
    (domain,) = group.domains
    assert (domain.certificate.uuid, domain.certificate.name) == (made.uuid, made.name), domain
    assert domain.certificate.state == "valid", domain
    used_by = (await ukc.certificates.get(uuid=made.uuid)).service_groups
    assert [it.name for it in used_by] == ["tls"], used_by
    used = await expect(UnikraftCloudError, handle.delete())
    assert "service group 'tls'" in str(used), used
    await ukc.services.get(name="tls").delete()
    await handle.delete()
    missing = await expect(NotFoundError, ukc.certificates.get(uuid=made.uuid))
    assert missing.absent, missing


async def quotas(ukc):
    (quota,) = await ukc.users.quotas()
    # The default account of a gateway has no limits.
    assert (quota.used.service_groups, quota.hard.service_groups) == (1, None), quota
    assert (quota.used.services, quota.used.instances) == (1, 0), quota


async def main():
    async with UnikraftCloud(token="tok", base_url=sys.argv[1], trust_env=False) as ukc:
        for step in (services, editing, paging, instances, quotas, certificates):
            await step(ukc)
            print(step.__name__, "done")
        await ukc.services.get(name="web").delete()
        assert [group async for group in ukc.services.list()] == []
    print("all done")


asyncio.run(main())
