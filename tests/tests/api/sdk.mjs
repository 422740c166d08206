// Drives the agent with the official client, as a user of it would. Run by js_sdk.rs.

import assert from "node:assert/strict";
import { UnikraftCloud } from "@unikraft/cloud";

const RAW = { port: 5432, destination_port: 7000, protocol: "tcp", handlers: [] };
const ukc = new UnikraftCloud({ token: "tok", baseUrl: process.argv[2] });

async function collect(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}

async function services() {
  const group = await ukc.services.create({ name: "web", services: [RAW] });
  assert.deepEqual([group.name, group.persistent], ["web", true]);
  assert.equal(group.services[0].destination_port, 7000);
  const read = await ukc.services.get({ name: "web" });
  assert.equal(read.uuid, group.uuid);
  assert.equal((await ukc.services.get({ uuid: group.uuid })).name, "web");
  await assert.rejects(
    async () => ukc.services.create({ name: "web", services: [{ ...RAW, port: 5433 }] }),
    /A service group with name 'web' already exists/,
  );
  await assert.rejects(async () => ukc.services.get({ name: "nope" }), /No service group with name 'nope'/);
}

async function editing() {
  const web = () => ukc.services.get({ name: "web" });
  const before = await web();
  const updated = await web().update({ hard_limit: 10, autokill: { time_ms: 60000 } });
  assert.deepEqual([updated.uuid, updated.name], [before.uuid, "web"]);
  let read = await web();
  assert.deepEqual([read.hard_limit, read.autokill.time_ms], [10, 60000]);
  await web()
    .edit()
    .set({ soft_limit: 3 })
    .add({ services: [{ ...RAW, port: 5433 }], domains: [{ name: "sdk.example.com." }] })
    .apply();
  // For `null` this client sends `del` without a value, which the contract has for lists alone: its
  // successor in Python sends the `set` that clears a property.
  await assert.rejects(async () => web().update({ autokill: null }), /works on lists only/);
  await web().update([{ prop: "autokill", op: "set" }]);
  read = await ukc.services.get({ uuid: before.uuid });
  assert.ok(!read.autokill?.time_ms);
  assert.deepEqual(read.services.map((service) => service.port).sort(), [5432, 5433]);
  assert.ok(read.domains.some((domain) => domain.fqdn === "sdk.example.com"));
  assert.deepEqual([read.soft_limit, read.hard_limit, read.created_at], [3, 10, before.created_at]);
  // One operation of an edit is wrong, so none of them is done.
  await assert.rejects(
    async () => web().edit().del({ services: [{ port: 5433 }] }).set({ soft_limit: 11 }).apply(),
    /limit/,
  );
  assert.equal((await web()).services.length, 2);
  await web()
    .edit()
    .del({ services: [{ port: 5433 }], domains: [{ name: "sdk.example.com." }] })
    .set({ soft_limit: 1, hard_limit: 65535 })
    .apply();
  read = await web();
  assert.deepEqual(read.services.map((service) => service.port), [5432]);
  assert.deepEqual([read.soft_limit, read.hard_limit], [1, 65535]);
  await assert.rejects(async () => ukc.services.get({ name: "nope" }).update({ hard_limit: 1 }), /nope/);
}

async function paging() {
  for (let number = 0; number < 5; number++)
    await ukc.services.create({ name: `page-${number}`, services: [{ ...RAW, port: 6000 + number }] });
  const all = [...Array(5).keys()].map((n) => `page-${n}`).concat("web");
  const listed = async (options) =>
    (await collect(ukc.services.list({ details: true, ...options }))).map((group) => group.name);
  assert.deepEqual((await listed({})).sort(), all);
  // A page begins with the item that its cursor names, as the Python client expects. This client
  // does not, and so hands that item out twice.
  for (const pageSize of [2, 3, 5, 6])
    assert.deepEqual([...new Set(await listed({ pageSize }))].sort(), all);
  const deleted = await ukc.services.delete([...Array(5).keys()].map((n) => ({ name: `page-${n}` })));
  assert.equal(deleted.length, 5);
}

async function instances() {
  const created = await ukc.instances.create({
    name: "one",
    image: "external",
    autostart: true,
    service_group: { name: "web" },
    network_interfaces: [{ ip: "10.66.0.11/32" }],
  });
  assert.deepEqual([created.name, created.state], ["one", "running"]);
  assert.equal(created.service_group.name, "web");
  assert.deepEqual((await collect(ukc.instances.list())).map((instance) => instance.name), ["one"]);
  await assert.rejects(async () => ukc.services.get({ name: "web" }).delete(), /web/);
  const stopped = await ukc.instances.get({ name: "one" }).stop();
  assert.deepEqual([stopped.state, stopped.previous_state], ["stopped", "running"]);
  const started = await ukc.instances.get({ uuid: created.uuid }).start();
  assert.equal(started.state, "running");
  const one = () => ukc.instances.get({ name: "one" });
  let isOver = false;
  const waiting = one()
    .wait({ state: "stopped", timeoutSeconds: 20 })
    .then((waited) => {
      isOver = true;
      return waited;
    });
  await assert.rejects(async () => one().wait({ state: "stopped", timeoutSeconds: 1 }), /[Tt]imed out/);
  assert.ok(!isOver);
  await one().stop();
  assert.equal((await waiting).state, "stopped");
  const metrics = await one().metrics();
  assert.deepEqual([metrics.uuid, metrics.name], [created.uuid, "one"]);
  await one().delete();
  await assert.rejects(async () => ukc.instances.get({ name: "one" }), /No instance with name 'one'/);
}

async function certificates() {
  const pem = { chain: process.env.TEST_CHAIN, pkey: process.env.TEST_PKEY };
  const made = await ukc.certificates.create({ common_name: "sdk.example.com", ...pem });
  assert.deepEqual([made.state, made.service_groups], ["valid", []]);
  assert.ok(!JSON.stringify(made).includes("PRIVATE"));
  const handle = () => ukc.certificates.get({ name: made.name });
  assert.equal((await handle()).serial_number, made.serial_number);
  assert.deepEqual((await collect(ukc.certificates.list())).map((one) => one.uuid), [made.uuid]);
  assert.equal((await handle().update(pem)).uuid, made.uuid);
  await assert.rejects(
    async () => ukc.certificates.create({ common_name: "a.example.net", ...pem }),
    /a\.example\.net/,
  );
  await handle().delete();
  await assert.rejects(async () => ukc.certificates.get({ uuid: made.uuid }), /No certificate/);
}

for (const step of [services, editing, paging, instances, certificates]) {
  await step();
  console.log(step.name, "done");
}
await ukc.services.get({ name: "web" }).delete();
assert.deepEqual(await collect(ukc.services.list()), []);
console.log("all done");
