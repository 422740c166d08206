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
  await ukc.instances.get({ name: "one" }).delete();
  await assert.rejects(async () => ukc.instances.get({ name: "one" }), /No instance with name 'one'/);
}

for (const step of [services, paging, instances]) {
  await step();
  console.log(step.name, "done");
}
await ukc.services.get({ name: "web" }).delete();
assert.deepEqual(await collect(ukc.services.list()), []);
console.log("all done");
