import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Etcd3, Range } from 'etcd3';
import type { Coordinator } from '../../contract/coordinator.js';
import type { Logger } from '../../contract/environment.js';
import { prefixEnd } from '../../contract/keys.js';
import { silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { createEtcd3Client } from './etcd3-client.js';
import type { EtcdSettings } from './etcd-settings.js';
import { TestAuthority } from './testing/certificates.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import { patient, realRandom, settingsFor } from './testing/etcd-fixture.js';
import { startNoEtcd } from './testing/no-etcd.js';

/** What is told at once needs no patience, and what works on a busy machine some. */
const open = (settings: EtcdSettings, startPatienceMs = 60_000) =>
  openEtcdCoordinator({
    settings,
    random: realRandom,
    logger: silentLogger,
    startPatienceMs,
  });

/** Uses everything that a server uses: transactions, lists, leases with their thread, watches. */
async function useAll(coordinator: Coordinator): Promise<void> {
  const lease = await coordinator.grantLease(20_000);
  const leaving = new AbortController();
  const watch = coordinator.watch('k', { signal: leaving.signal });
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: 'k', value: Buffer.from('v'), lease: lease.id }],
    failure: [],
  });
  for await (const batch of watch) {
    assert.equal(batch.events.length, 1);
    break;
  }
  leaving.abort();
  assert.equal((await coordinator.range('k')).entries.length, 1);
  assert.equal((await coordinator.leaseLeft(lease.id))?.ttlMs, lease.ttlMs);
  await coordinator.identity();
  await coordinator.ping();
  await lease.revoke();
  assert.equal(await coordinator.get('k'), undefined);
}

describe('etcd over TLS', () => {
  let directory: string;
  let cluster: EtcdCluster;
  let settings: EtcdSettings;
  let strangers: EtcdSettings['tls'];
  let otherAuthority: Buffer;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'quorate-etcd-tls-'));
    const authority = await TestAuthority.make(directory);
    const member = await authority.sign('member');
    cluster = await EtcdCluster.start({ tls: { caFile: authority.caFile, ...member } });
    const client = await authority.sign('client');
    const ca = await readFile(authority.caFile);
    settings = {
      ...settingsFor(cluster),
      ...patient,
      tls: { ca, cert: await readFile(client.certFile), key: await readFile(client.keyFile) },
    };
    const other = await TestAuthority.make(directory, 'other');
    otherAuthority = await readFile(other.caFile);
    const stranger = await other.sign('stranger');
    strangers = {
      ca,
      cert: await readFile(stranger.certFile),
      key: await readFile(stranger.keyFile),
    };
  });
  after(async () => {
    await cluster.stop();
    await rm(directory, { recursive: true });
  });

  test('everything works with a certificate that the cluster takes', async () => {
    const coordinator = await open(settings);
    try {
      await useAll(coordinator);
    } finally {
      await coordinator.close();
    }
  });
  const wrong: readonly {
    readonly desc: string;
    readonly tls: () => EtcdSettings['tls'];
    readonly says: RegExp;
  }[] = [
    { desc: 'no TLS', tls: () => undefined, says: /speaks TLS: .*etcd\.ca/ },
    {
      desc: 'an authority that is not that of etcd',
      tls: () => (settings.tls === undefined ? undefined : { ...settings.tls, ca: otherAuthority }),
      says: /certificate that is not taken \(.*authority in etcd\.ca/,
    },
    {
      desc: 'a certificate of another authority',
      tls: () => strangers,
      says: /does not take the certificate in etcd\.cert/,
    },
    {
      desc: 'no certificate',
      tls: () => (settings.tls === undefined ? undefined : { ca: settings.tls.ca }),
      says: /wants a certificate of its clients: .*etcd\.cert and etcd\.key/,
    },
  ];
  for (const { desc, tls, says } of wrong) {
    test(`the start is refused, within bounded time, and says why: ${desc}`, async () => {
      const { endpoints, prefix } = settings;
      const material = tls();
      const opening = open(
        { endpoints, prefix, ...(material === undefined ? {} : { tls: material }) },
        2_000,
      );
      await assert.rejects(opening, { code: 'unavailable', message: says });
    });
  }
});

describe('etcd with users', () => {
  let cluster: EtcdCluster;
  let root: Etcd3;
  before(async () => {
    cluster = await EtcdCluster.start();
    const settings = settingsFor(cluster);
    const admin = createEtcd3Client(cluster.member(0).endpoint, settings);
    await admin.role('root').create();
    await admin.user('root').create('root password');
    await admin.user('root').addRole('root');
    await admin.role('quorate').create();
    const role = admin.role('quorate');
    await role.grant({
      permission: 'Readwrite',
      range: new Range(Buffer.from('quorate/'), Buffer.from(prefixEnd('quorate/'))),
    });
    await admin.user('quorate').create('right');
    await admin.user('quorate').addRole('quorate');
    await admin.auth.authEnable();
    admin.close();
    root = createEtcd3Client(cluster.member(0).endpoint, {
      ...settings,
      auth: { user: 'root', password: 'root password' },
    });
  });
  after(async () => {
    root.close();
    await cluster.stop();
  });
  const as = (password: string): EtcdSettings => ({
    ...settingsFor(cluster),
    ...patient,
    auth: { user: 'quorate', password },
  });

  test('a user with rights below the prefix can do all that a server does', async () => {
    const coordinator = await open(as('right'));
    try {
      await useAll(coordinator);
    } finally {
      await coordinator.close();
    }
  });
  test('etcd that has forgotten its tokens is signed in to again', async () => {
    const coordinator = await open(as('right'));
    try {
      const lease = await coordinator.grantLease(60_000);
      const leaving = new AbortController();
      const batches = coordinator.watch('later', { signal: leaving.signal });
      const watch = batches[Symbol.asyncIterator]();
      const next = watch.next();
      await cluster.member(0).kill();
      cluster.member(0).start();
      await cluster.ready();
      await useAll(coordinator);
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'put', key: 'later', value: new Uint8Array(), lease: lease.id }],
        failure: [],
      });
      const { value } = await next;
      assert.equal(value?.events.length, 1);
      leaving.abort();
      assert.equal(lease.lost.aborted, false);
    } finally {
      await coordinator.close();
    }
  });
  test('a wrong password is told at once', async () => {
    const opening = open(as('wrong'));
    const message = /invalid user ID or password\): look at etcd\.user and .*etcd\.passwordFile/;
    await assert.rejects(opening, { code: 'unavailable', message });
  });
  test('no user at all is told at once', async () => {
    const opening = open(settingsFor(cluster));
    const message = /it asks for a user: etcd\.user and etcd\.passwordFile/;
    await assert.rejects(opening, { code: 'unavailable', message });
  });
  test('a user without rights below the prefix is told so, and how to get them', async () => {
    const opening = open({ ...as('right'), prefix: 'elsewhere/' });
    const message =
      /permission denied\): the user quorate .*etcd\.prefix: etcdctl role .* elsewhere\/$/;
    await assert.rejects(opening, { code: 'unavailable', message });
  });
});

describe('etcd without users', () => {
  let cluster: EtcdCluster;
  before(async () => {
    cluster = await EtcdCluster.start();
  });
  after(() => cluster.stop());

  test('a user is told that there are none', async () => {
    const opening = open({
      ...settingsFor(cluster),
      ...patient,
      auth: { user: 'quorate', password: 'right' },
    });
    const message = /it has no users: leave etcd\.user away/;
    await assert.rejects(opening, { code: 'unavailable', message });
  });
  test('an address that is no member is told in the log, and the others are used', async () => {
    const { endpoint: member, stop } = await startNoEtcd();
    const warnings: unknown[] = [];
    const logger: Logger = {
      ...silentLogger,
      warn: (fields) => warnings.push(fields),
      child: () => logger,
    };
    const { endpoints, prefix } = settingsFor(cluster);
    const coordinator = await openEtcdCoordinator({
      settings: { endpoints: [...endpoints, member], prefix, ...patient },
      random: realRandom,
      logger,
    });
    try {
      await useAll(coordinator);
      const found = `what listens on ${member} is no etcd that we may use, or is too busy to answer`;
      assert.deepEqual(warnings, [{ member, found, reason: 'no connection' }]);
    } finally {
      await coordinator.close();
      stop();
    }
  });
});
