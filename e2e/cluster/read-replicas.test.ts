import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene, repositoriesOf } from './cluster-scene.js';

interface Copy {
  readonly nodeId: string;
  readonly role: string;
  readonly declared?: string;
  readonly lag?: number;
}

const pkt = (text: string): string => `${(text.length + 4).toString(16).padStart(4, '0')}${text}`;

describe('a cluster of four storage nodes, and a repository that many read', () => {
  let ground: ClusterScene;
  before(async () => {
    ground = await createClusterScene({
      storageNodes: 4,
      flags: [
        '--set=replication.readReplicas.rate=1',
        '--set=replication.readReplicas.max=1',
        '--set=replication.readReplicas.coolDown=3s',
      ],
    });
  });
  after(() => ground.close());

  async function reader(): Promise<Copy | undefined> {
    const text = await ground.admin(1, '--json', 'repo', 'replicas', 'team/hot');
    const copies: readonly Copy[] = JSON.parse(text);
    assert.equal(copies.filter(({ role }) => role === 'voter').length, 3);
    return copies.find(({ role }) => role === 'reader');
  }

  /** Reads that a storage node has opened. */
  async function served(nodeId: string): Promise<number> {
    const node = ground.cluster.storage.find(({ name }) => name === nodeId);
    assert.ok(node !== undefined);
    const answer = await fetch(`${node.fact('opsUrl')}/metrics`);
    const text = await answer.text();
    const count = /^quorate_node_calls_total\{call="read",outcome="ok"\} (\d+)/m.exec(text);
    return Number(count?.[1] ?? 0);
  }

  test('it gets a reader, which serves, follows pushes and goes again', async () => {
    const { scene, cluster } = ground;
    const directory = await scene.makeRepository({ commits: 2 });
    const url = new URL(ground.httpUrl(0, 'team/hot.git'));
    await scene.git(['push', '-q', url.href, 'main'], { cwd: directory });
    const tip = (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
    const target = `${url.origin}${url.pathname}/git-upload-pack`;
    const headers = {
      authorization: `Basic ${btoa(`${url.username}:${url.password}`)}`,
      'content-type': 'application/x-git-upload-pack-request',
      'git-protocol': 'version=2',
    };
    let wanted = tip;
    const once = async (): Promise<void> => {
      const body = `${pkt('command=fetch\n')}0001${pkt(`want ${wanted}\n`)}${pkt('done\n')}0000`;
      const answer = await fetch(target, { method: 'POST', headers, body });
      const bytes = Buffer.from(await answer.arrayBuffer());
      assert.equal(answer.status, 200);
      assert.ok(bytes.includes('PACK'), bytes.toString('latin1').slice(0, 200));
    };
    const calm = new AbortController();
    const hammers = Array.from({ length: 8 }, async () => {
      while (!calm.signal.aborted) await once();
    });
    let last: Copy | undefined;
    try {
      const hot = await waitFor('a reader that is filled', async () => {
        const found = await reader();
        return found !== undefined && found.declared === undefined ? found : undefined;
      });
      const before = await served(hot.nodeId);
      await waitFor('the reader to serve', async () => (await served(hot.nodeId)) > before);
      const next = await scene.commit(directory, 'change.txt', 'one\n');
      await scene.git(['push', '-q', url.href, 'main'], { cwd: directory });
      wanted = next;
      // While it is read: it goes soon after.
      last = await waitFor('the reader to follow', async () => {
        const found = await reader();
        return found?.lag === 0 ? found : undefined;
      });
      const later = await served(hot.nodeId);
      await waitFor('the reader to serve on', async () => (await served(hot.nodeId)) > later);
    } finally {
      calm.abort();
      await Promise.all(hammers);
    }
    await waitFor('the reader to go', async () => (await reader()) === undefined);
    const node = cluster.storage.find(({ name }) => name === last?.nodeId);
    assert.ok(node !== undefined);
    await waitFor('its files to go', async () => (await repositoriesOf(node)).length === 0);
    assert.equal((await scene.git(['ls-remote', url.href, 'main'])).split('\t')[0], wanted);
  });
});
