import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { asCoordinator, MemoryCoordinator } from '../auth/memory-coordinator.fixture.js';
import { ApiScene } from './testing/api-scene.js';

interface Lost {
  readonly scene: ApiScene;
  readonly token: string;
  /** From now on the coordinator answers nothing. */
  readonly lose: () => void;
}

async function open(): Promise<Lost> {
  const memory = asCoordinator(new MemoryCoordinator());
  let lost = false;
  const unlessLost = <T>(ask: () => Promise<T>): Promise<T> =>
    lost ? Promise.reject(new QuorateError('unavailable', 'the coordinator is lost')) : ask();
  let local: string | undefined;
  const scene = await ApiScene.open({
    coordinator: {
      ...memory,
      get: (key, how) => unlessLost(() => memory.get(key, how)),
      range: (key, how) => unlessLost(() => memory.range(key, how)),
      transaction: (transaction) => unlessLost(() => memory.transaction(transaction)),
    },
    coordinatorView: {
      members: () =>
        Promise.resolve(
          ['a:1', 'b:1', 'c:1'].map((address) => ({
            address,
            answers: !lost,
            leads: !lost && address === 'a:1',
            hasLeader: !lost,
            problem: lost ? `nothing listens on ${address}` : undefined,
          })),
        ),
      lostForMs: () => (lost ? 5_000 : undefined),
    },
    localAdmin: {
      principalOf: (secret) =>
        secret !== local
          ? undefined
          : {
              kind: 'user',
              name: 'admin',
              admin: true,
              canCreate: true,
              via: { type: 'token', tokenId: '1', scope: 'admin', repositoryPattern: undefined },
              recalled: true,
            },
    },
  });
  const token = await scene.token('root', { admin: true });
  local = token;
  assert.ok(scene.backend.stores);
  scene.backend.stores = {
    ...scene.backend.stores,
    nodes: () => unlessLost(() => Promise.resolve([])),
    known: () => [
      {
        nodeId: 'n1',
        address: 'n1:7420',
        zone: 'z',
        mark: undefined,
        answers: true,
        problem: 'the disk is full',
      },
      {
        nodeId: 'n2',
        address: 'n2:7420',
        zone: 'z',
        mark: 'draining',
        answers: false,
        problem: undefined,
      },
    ],
  };
  return { scene, token, lose: () => void (lost = true) };
}

test('a coordinator that answers is shown with its members', async () => {
  const { scene, token } = await open();
  try {
    const { status, body } = await scene.request('GET', '/status', { token });
    assert.equal(status, 200);
    assert.deepEqual([body?.['known'], body?.['storage'] === null], [null, false]);
    const coordinator = Object(body?.['coordinator']);
    assert.deepEqual([coordinator.answers, coordinator.members.length], [true, 3]);
  } finally {
    await scene.close();
  }
});

test('while the coordinator does not answer, the status says what is known without it, to who has the token of this server', async () => {
  const { scene, token, lose } = await open();
  try {
    const before = await scene.request('GET', '/status', { token });
    lose();
    const { status, body } = await scene.request('GET', '/status', { token });
    assert.equal(status, 200);
    const { coordinator, known, storage, cluster, locks, quotas } = Object(body);
    assert.deepEqual([storage, cluster, locks, quotas], [null, null, null, null]);
    assert.deepEqual([coordinator.answers, coordinator.lostSeconds], [false, 5]);
    assert.match(
      coordinator.problem,
      /^etcd has no majority: 0 of 3 members answer \(not: a:1, b:1, c:1\)/,
    );
    assert.deepEqual(
      known.nodes.map(({ nodeId, answers, mark, problem }: Record<string, unknown>) => [
        nodeId,
        answers,
        mark,
        problem,
      ]),
      [
        ['n1', true, null, 'the disk is full'],
        ['n2', false, 'draining', null],
      ],
    );
    const { ageSeconds, at, ...last } = known.last;
    assert.equal(typeof ageSeconds, 'number');
    assert.ok(Number.isFinite(Date.parse(at)));
    for (const part of ['storage', 'cluster', 'locks', 'quotas']) {
      assert.deepEqual(last[part], before.body?.[part], part);
    }
  } finally {
    await scene.close();
  }
});

test('whose token nobody can judge now is told nothing, and other questions are not answered', async () => {
  const { scene, token, lose } = await open();
  try {
    const other = await scene.token('other', { admin: true });
    lose();
    const refused = await scene.request('GET', '/status', { token: other });
    assert.equal(refused.status, 503);
    assert.equal((await scene.request('GET', '/status')).status, 401);
    assert.equal((await scene.request('GET', '/locks', { token })).status, 503);
    const { body } = await scene.request('GET', '/status', { token });
    assert.equal(Object(body?.['known']).last, null);
  } finally {
    await scene.close();
  }
});
