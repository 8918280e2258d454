import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Cluster } from './cluster/cluster.js';
import { createScene, waitFor } from './harness.js';
import type { Scene } from './harness.js';
import { Receiver } from './webhook-receiver.js';

// Webhooks with several front-ends on one etcd, storage nodes behind them, and real git.

let scene: Scene;
let cluster: Cluster;
let receiver: Receiver;
let adminToken: string;
before(async () => {
  scene = await createScene();
  const settings = ['webhooks.allowedNetworks=127.0.0.1', 'replication.factor=1'];
  cluster = await Cluster.start({
    directory: scene.path('cluster'),
    storageNodes: 1,
    etcdMembers: 1,
    env: scene.env,
    frontEndFlags: settings.flatMap((setting) => ['--set', setting]),
  });
  adminToken = await cluster.adminToken();
  receiver = await Receiver.open();
});
after(async () => {
  await receiver.close();
  await cluster.kill();
  await scene.close();
});

async function admin(frontEnd: number, path: string, body: object): Promise<void> {
  const answer = await fetch(`${cluster.frontEnd(frontEnd).fact('httpUrl')}/api/v1${path}`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${adminToken}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 201, await answer.text());
}

function url(frontEnd: number, repository: string): string {
  const base = new URL(cluster.frontEnd(frontEnd).fact('httpUrl'));
  base.username = 'admin';
  base.password = adminToken;
  base.pathname = repository;
  return base.href;
}

test('pushes through every front-end are told once; when one is killed the other goes on', async () => {
  await admin(0, '/repositories', { name: 'team/app' });
  await admin(1, '/repositories/team%2Fapp/webhooks', { url: receiver.url() });
  const clone = await scene.makeRepository();
  const push = async (frontEnd: number, number: number): Promise<void> => {
    await scene.commit(clone, 'file.txt', `content ${number}`);
    await scene.git(['push', '-q', url(frontEnd, 'team/app'), 'main'], { cwd: clone });
  };
  for (let number = 1; number <= 8; number += 1) await push(number % 2, number);
  const told = await receiver.take('push', 8);
  assert.deepEqual(
    told.map(({ body }) => Number(body['generation'])).sort((a, b) => a - b),
    [1, 2, 3, 4, 5, 6, 7, 8],
  );

  receiver.received.length = 0;
  receiver.behaviour = () => undefined;
  await push(0, 9);
  const [cutOff] = await receiver.take('push');
  await cluster.frontEnd(0).kill();
  receiver.received.length = 0;
  receiver.behaviour = (_request, response) => void response.end();
  await push(1, 10);
  const generations = (): readonly unknown[] =>
    receiver.received.map(({ body }) => body['generation']);
  await waitFor('both to be told', () => new Set(generations()).size === 2);
  const again = receiver.received.find(({ body }) => body['generation'] === 9);
  assert.equal(again?.delivery, cutOff?.delivery);
});
