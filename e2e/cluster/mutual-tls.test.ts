import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Range } from 'etcd3';
import { prefixEnd } from '../../backends/contract/keys.js';
import { createEtcd3Client } from '../../backends/coordination/etcd/etcd3-client.js';
import {
  type CertificateFiles,
  TestAuthority,
} from '../../backends/coordination/etcd/testing/certificates.js';
import { Seeded, seedFrom } from '../checker/seeded.js';
import type { EtcdCluster } from '../etcd.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import { MemberProcess } from './member-process.js';
import { PushLoad } from './push-load.js';

const etcdPassword = 'a password of etcd';

/** Certificates of a cluster, in files that can be exchanged. */
interface Ground {
  readonly directory: string;
  readonly authority: TestAuthority;
  /** The authorities that members of the cluster believe: a file of its own. */
  readonly trusted: string;
  /** Those that etcd believes, for its clients. */
  readonly etcdTrusted: string;
  readonly node: CertificateFiles;
  readonly etcdClient: CertificateFiles;
}

describe('a cluster in which everybody proves who it is: TLS and a user to etcd, mutual TLS among the members', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  let ground: Ground;
  let scene: ClusterScene | undefined;
  let load: PushLoad | undefined;

  before(async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'quorate-mutual-tls-'));
    const authority = await TestAuthority.make(directory);
    ground = {
      directory,
      authority,
      trusted: path.join(directory, 'trusted.pem'),
      etcdTrusted: path.join(directory, 'etcd-trusted.pem'),
      node: await authority.sign('node'),
      etcdClient: await authority.sign('etcd-client'),
    };
    await copyFile(authority.caFile, ground.trusted);
    await copyFile(authority.caFile, ground.etcdTrusted);
    await writeFile(path.join(directory, 'etcd-password'), `${etcdPassword}\n`);
    const member = await authority.sign('etcd-member');
    scene = await createClusterScene({
      etcdTls: { caFile: ground.etcdTrusted, ...member },
      etcdReady: (etcd) => addUser(etcd, ground),
      sharedSecret: false,
      flags: [...etcdFlags(ground), ...nodeFlags(ground.trusted, ground.node), interval],
    });
    load = await PushLoad.start(scene, random);
  });
  after(async () => {
    await load?.close();
    await scene?.close();
    await rm(ground.directory, { recursive: true });
  });

  function parts(): { readonly whole: ClusterScene; readonly pushing: PushLoad } {
    assert.ok(scene !== undefined && load !== undefined);
    return { whole: scene, pushing: load };
  }

  test('pushes are taken', async () => {
    await parts().pushing.survive('nothing', () => Promise.resolve());
  });

  test('logs are JSON beside the words of a start: Node prints no warnings of its own', () => {
    const { cluster } = parts().whole;
    for (const { log } of [...cluster.storage, ...cluster.frontEnds]) {
      assert.doesNotMatch(log, /^\(node:|DeprecationWarning.*\n\(Use/m);
    }
  });

  test('whoever has certificates of another authority is no member, and no client of etcd', async () => {
    const { whole } = parts();
    const foreign = await TestAuthority.make(ground.directory, 'foreign');
    const stranger = await foreign.sign('stranger');
    const etcd = etcdFlags({ ...ground, etcdClient: stranger });
    const said = await refusal(whole, [...etcd, ...nodeFlags(ground.trusted, ground.node)]);
    assert.match(said, /no etcd answers.*does not take the certificate in etcd\.cert/);
    // It gets into etcd, and none of the others speaks with it.
    const impostor = await member(whole, [
      ...etcdFlags(ground),
      ...nodeFlags(foreign.caFile, stranger),
    ]);
    try {
      await impostor.start().ready();
      const alive = await waitFor('the members to be alive', async () => {
        const nodes: { nodeId: string; alive: boolean }[] = JSON.parse(
          await whole.admin(0, '--json', 'node', 'list'),
        );
        const ids = nodes.filter((node) => node.alive).map(({ nodeId }) => nodeId);
        return ids.length >= 3 ? ids : undefined;
      });
      assert.deepEqual(alive, ['storage-1', 'storage-2', 'storage-3']);
      const ops = impostor.fact('opsUrl');
      const told = await waitFor('it to say that it is no member', async () => {
        const answer = await fetch(`${ops}/readyz`);
        return answer.status === 503 ? await answer.text() : undefined;
      });
      assert.match(
        told,
        /"members":"no other storage node \(storage-1, storage-2, storage-3\) takes part .*certificate/,
      );
      assert.match(
        await whole.admin(0, 'status'),
        new RegExp(`^problem of ${impostor.name}: .*certificate`, 'm'),
      );
      await parts().pushing.survive('an impostor', () => Promise.resolve());
    } finally {
      await impostor.stop();
    }
  });

  test('certificates and their authority change while pushes go on, and no process is restarted', async () => {
    await parts().pushing.survive('new certificates', exchangeAll);
  });

  async function exchangeAll(): Promise<void> {
    const { whole, pushing } = parts();
    const { directory, authority, trusted, etcdTrusted, node, etcdClient } = ground;
    const pids = [...whole.cluster.storage, ...whole.cluster.frontEnds].map(({ pid }) => pid);
    const next = await TestAuthority.make(directory, 'next');
    const both = await Promise.all([authority, next].map(({ caFile }) => readFile(caFile)));
    await writeFile(trusted, Buffer.concat(both));
    await writeFile(etcdTrusted, Buffer.concat(both));
    await restartEtcd(parts());
    await inUse(whole, 'cluster.tls', 1);
    await exchange(await next.sign('node-2'), node);
    await exchange(await next.sign('etcd-client-2'), etcdClient);
    await inUse(whole, 'cluster.tls', 2);
    await inUse(whole, 'etcd', 1);
    await copyFile(next.caFile, trusted);
    await inUse(whole, 'cluster.tls', 3);
    await pushing.acknowledged(20, 'with new certificates');
    // Connections that there were end with it, and those of before are not taken any more.
    await copyFile(next.caFile, etcdTrusted);
    await restartEtcd(parts());
    assert.deepEqual(
      [...whole.cluster.storage, ...whole.cluster.frontEnds].map(({ pid }) => pid),
      pids,
    );
    const restarted = whole.cluster.storageNode(0);
    await restarted.kill();
    await restarted.start().ready();
    await pushing.acknowledged(10, 'after a storage node was started again');
    const old = await authority.sign('of-before');
    const late = await member(whole, [...etcdFlags(ground), ...nodeFlags(trusted, old)]);
    try {
      await late.start().ready();
      const listed = await whole.admin(0, 'node', 'list');
      assert.doesNotMatch(listed, new RegExp(`${late.name} +alive`));
    } finally {
      await late.stop();
    }
  }

  test('what does not fit together is not taken, and health says so', async () => {
    const { whole, pushing } = parts();
    const good = await readFile(ground.node.keyFile);
    await writeFile(ground.node.keyFile, 'no key');
    const ops = whole.cluster.storageNode(0).fact('opsUrl');
    await waitFor('the warning, and nothing worse', async () => {
      const text = await (await fetch(`${ops}/readyz`)).text();
      return text.includes('the new files are not used') && text.includes('"status":"ready"');
    });
    await pushing.survive('files that are not taken', () => Promise.resolve());
    await writeFile(ground.node.keyFile, good);
    await waitFor('the warning to go', async () => {
      return !(await (await fetch(`${ops}/readyz`)).text()).includes('warnings');
    });
  });

  test('nothing acknowledged is missing', async () => {
    const { pushing } = parts();
    await pushing.quiet();
    await pushing.converge();
    await pushing.checkDisks();
  });
});

const interval = '--set=tls.checkInterval=200ms';

/** One after the other; each reads at its start whom it believes. */
async function restartEtcd({
  whole: {
    cluster: { etcd },
  },
  pushing,
}: {
  readonly whole: ClusterScene;
  readonly pushing: PushLoad;
}): Promise<void> {
  for (const [index, member] of etcd.members.entries()) {
    await member.kill();
    member.start();
    await etcd.ready();
    await pushing.acknowledged(3, `after etcd member ${index + 1} was started again`);
  }
}

function etcdFlags({ directory, authority, etcdClient }: Ground): readonly string[] {
  return [
    `--set=etcd.ca=${authority.caFile}`,
    `--set=etcd.cert=${etcdClient.certFile}`,
    `--set=etcd.key=${etcdClient.keyFile}`,
    '--set=etcd.user=quorate',
    `--set=etcd.passwordFile=${path.join(directory, 'etcd-password')}`,
  ];
}

function nodeFlags(caFile: string, { certFile, keyFile }: CertificateFiles): readonly string[] {
  return [
    `--set=cluster.tls.ca=${caFile}`,
    `--set=cluster.tls.cert=${certFile}`,
    `--set=cluster.tls.key=${keyFile}`,
  ];
}

/** As docs/operations.md says: a user with rights below the prefix and nothing else. */
async function addUser(etcd: EtcdCluster, { authority, etcdClient }: Ground): Promise<void> {
  const tls = {
    ca: await readFile(authority.caFile),
    cert: await readFile(etcdClient.certFile),
    key: await readFile(etcdClient.keyFile),
  };
  const admin = createEtcd3Client(etcd.member(0).endpoint, {
    endpoints: etcd.endpoints,
    prefix: '',
    tls,
  });
  try {
    await admin.role('root').create();
    await admin.user('root').create('root password');
    await admin.user('root').addRole('root');
    const role = admin.role('quorate');
    await role.create();
    await role.grant({
      permission: 'Readwrite',
      range: new Range(Buffer.from('quorate/'), Buffer.from(prefixEnd('quorate/'))),
    });
    await admin.user('quorate').create(etcdPassword);
    await admin.user('quorate').addRole('quorate');
    await admin.auth.authEnable();
  } finally {
    admin.close();
  }
}

async function member(
  { scene, cluster }: ClusterScene,
  flags: readonly string[],
): Promise<MemberProcess> {
  const port = await pickPort();
  const name = `stranger-${port}`;
  const dataDirectory = scene.path(name);
  await mkdir(dataDirectory, { recursive: true });
  return new MemberProcess({
    name,
    dataDirectory,
    readyFile: 'node.json',
    env: scene.env,
    detached: false,
    flags: [
      '--role=storage',
      `--node-id=${name}`,
      `--node=127.0.0.1:${port}`,
      `--ops=127.0.0.1:${await pickPort()}`,
      `--coordinator=${cluster.etcd.url}`,
      ...flags,
    ],
  });
}

async function refusal(ground: ClusterScene, flags: readonly string[]): Promise<string> {
  const refused = await member(ground, flags);
  await assert.rejects(refused.start().ready());
  return refused.log;
}

async function exchange(by: CertificateFiles, files: CertificateFiles): Promise<void> {
  await copyFile(by.certFile, files.certFile);
  await copyFile(by.keyFile, files.keyFile);
}

/** Resolves when every member has said so many times that it has new certificates. */
async function inUse({ cluster }: ClusterScene, files: string, times: number): Promise<void> {
  for (const { name, logFile } of [...cluster.storage, ...cluster.frontEnds]) {
    await waitFor(`new certificates in use at ${name}`, async () => {
      const lines = (await readFile(logFile, 'utf8')).split('\n');
      const said = lines.filter(
        (line) => line.includes('new certificates are in use') && line.includes(`"${files}"`),
      );
      return said.length >= times;
    });
  }
}
