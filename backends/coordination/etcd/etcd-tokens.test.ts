import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Etcd3 } from 'etcd3';
import type { Coordinator } from '../../contract/coordinator.js';
import { silentLogger } from '../test-environment.js';
import { createEtcd3Client } from './etcd3-client.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import { patient, realRandom, settingsFor } from './testing/etcd-fixture.js';

/** For a change to be told of, on a machine that has a lot else to do. */
const patienceMs = 60_000;
const user = { name: 'quorate', password: 'right', prefix: 'quorate/' };

interface Operators {
  readonly root: Etcd3;
  /** Is let in where there are no users. */
  readonly nobody: Etcd3;
}

/** A cluster with users, and a coordinator of one of them. */
async function withUsers(
  extraArguments: readonly string[],
  use: (coordinator: Coordinator, operators: Operators) => Promise<void>,
): Promise<void> {
  const cluster = await EtcdCluster.start({ extraArguments });
  try {
    await cluster.enableUsers([user]);
    const settings = settingsFor(cluster, user.prefix);
    const coordinator = await openEtcdCoordinator({
      settings: { ...settings, ...patient, auth: { user: user.name, password: user.password } },
      random: realRandom,
      logger: silentLogger,
      startPatienceMs: 60_000,
    });
    const { endpoint } = cluster.member(0);
    const auth = { user: 'root', password: 'root' };
    const root = createEtcd3Client(endpoint, { ...settings, auth });
    const nobody = createEtcd3Client(endpoint, settings);
    try {
      await use(coordinator, { root, nobody });
    } finally {
      root.close();
      nobody.close();
      await coordinator.close();
    }
  } finally {
    await cluster.stop();
  }
}

async function put(coordinator: Coordinator): Promise<void> {
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: 'k', value: new Uint8Array() }],
    failure: [],
  });
}

/** Opens one, and waits until it has told of a change. */
async function watchOnce(coordinator: Coordinator): Promise<void> {
  const leaving = new AbortController();
  const timer = setTimeout(() => leaving.abort(), patienceMs);
  try {
    const watch = coordinator.watch('k', { signal: leaving.signal });
    const first = watch[Symbol.asyncIterator]().next();
    await put(coordinator);
    assert.equal((await first).value?.events.length, 1);
  } finally {
    clearTimeout(timer);
    leaving.abort();
  }
}

describe('tokens that etcd takes no more', () => {
  test('watches are opened with others, too', async () => {
    await withUsers([], async (coordinator, { root, nobody }) => {
      await watchOnce(coordinator);
      // It forgets all tokens.
      await root.auth.authDisable();
      await nobody.auth.authEnable();
      await watchOnce(coordinator);
    });
  });

  test('a change of users costs nothing where tokens carry their revision', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'quorate-etcd-tokens-'));
    const [publicFile, privateFile] = [join(directory, 'public.pem'), join(directory, 'key.pem')];
    const { publicKey, privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    await writeFile(publicFile, publicKey);
    await writeFile(privateFile, privateKey);
    const tokens = `jwt,pub-key=${publicFile},priv-key=${privateFile},sign-method=RS256,ttl=10m`;
    try {
      await withUsers([`--auth-token=${tokens}`], async (coordinator, { root }) => {
        await watchOnce(coordinator);
        await root.user('another').create('password');
        await put(coordinator);
        await root.user('a third').create('password');
        assert.equal((await coordinator.range('k')).entries.length, 1);
        await watchOnce(coordinator);
      });
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
