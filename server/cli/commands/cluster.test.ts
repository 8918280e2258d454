import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { NodeInfo } from '../../../backends/contract/cluster.js';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { CopyFound, HeadFound } from '../../../backends/contract/recovery.js';
import { ApiScene } from '../../admin/testing/api-scene.js';
import { runQuorate } from '../testing/run-quorate.js';

function nodeInfo(nodeId: string, more: Partial<NodeInfo> = {}): NodeInfo {
  return {
    nodeId,
    storeId: 'ab'.repeat(16),
    alive: true,
    silent: false,
    mark: undefined,
    markedAtMs: undefined,
    address: '127.0.0.1:7420',
    zone: 'default',
    weight: 1,
    capacityBytes: 1,
    usedBytes: 0,
    problem: undefined,
    clockApartMs: undefined,
    copies: 0,
    ...more,
  };
}

/** A cluster of three nodes, which a test changes. */
async function openNodes(t: TestContext): Promise<{
  nodes: readonly NodeInfo[];
  readonly scene: ApiScene;
  readonly quorate: (...words: readonly string[]) => ReturnType<typeof runQuorate>;
}> {
  const scene = await ApiScene.open();
  t.after(() => scene.close());
  const { stores, cluster } = scene.backend;
  assert.ok(stores !== undefined && cluster !== undefined);
  const env = { QUORATE_URL: scene.url, QUORATE_TOKEN: await scene.token('root', { admin: true }) };
  const ground = {
    nodes: ['a', 'b', 'c'].map((nodeId) => nodeInfo(nodeId)),
    scene,
    quorate: (...words: readonly string[]) => runQuorate(words, { env }),
  };
  scene.backend.stores = { ...stores, nodes: () => Promise.resolve(ground.nodes) };
  scene.backend.cluster = { ...cluster, replicationFactor: 3 };
  return ground;
}

test('a list of nodes says when they are fewer than a repository is to have copies', async (t) => {
  const ground = await openNodes(t);
  const list = async (...more: readonly string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await ground.quorate('node', 'list', ...more);
    assert.equal(exitCode, 0, stderr);
    assert.match(stdout, more.length === 0 ? /^a +alive /m : /^\[\{"nodeId":"a",/);
    return stderr;
  };
  assert.equal(await list(), '');
  ground.nodes = [
    ...ground.nodes.slice(0, 2),
    nodeInfo('c', { mark: 'draining' }),
    nodeInfo('d', { alive: false }),
  ];
  assert.equal(await list(), '2 of 4 nodes can take copies; fewer than replication.factor (3)\n');
  assert.equal(await list('--json'), '');
});

test('status says how many repositories have no majority, and whose copies are missed', async (t) => {
  const { scene, quorate } = await openNodes(t);
  const row = async (): Promise<string> => {
    const { exitCode, stdout, stderr } = await quorate('status');
    assert.equal(exitCode, 0, stderr);
    return /^repositories without a majority: +(.*)$/m.exec(stdout)?.[1] ?? stdout;
  };
  assert.equal(await row(), '0');
  const { cluster } = scene.backend;
  assert.ok(cluster !== undefined);
  const missed = { repositories: 2, nodes: ['b', 'c'] };
  scene.backend.cluster = { ...cluster, withoutMajority: () => Promise.resolve(missed) };
  assert.equal(await row(), '2; too few copies for a push at quorum: bring back enough of b, c');
});

test('a node that was removed and runs is told of, with what to do', async (t) => {
  const ground = await openNodes(t);
  const markedAtMs = Date.UTC(2026, 0, 2, 3, 4);
  ground.nodes = [
    ...ground.nodes,
    nodeInfo('d', { mark: 'removed', markedAtMs }),
    nodeInfo('e', { mark: 'removed', markedAtMs, alive: false, copies: 1 }),
    nodeInfo('f', { mark: 'draining' }),
  ];
  const listed = await ground.quorate('node', 'list');
  assert.match(listed.stdout, /^d +alive +removed 2026-01-02 03:04 /m);
  assert.match(listed.stdout, /^e +away +removed 2026-01-02 03:04 /m);
  const words = 'd was removed and still runs: stop it, or quorate node undrain d takes it back';
  assert.equal(listed.stderr, `${words}\n`);
  const { stdout } = await ground.quorate('status');
  assert.match(
    stdout,
    /^storage nodes: +5 of 6 alive; away: e; draining: f; removed and still running: d$/m,
  );
});

test('a node of which nothing is left but that it was removed is listed with --all only', async (t) => {
  const ground = await openNodes(t);
  const away = { mark: 'removed', alive: false } as const;
  ground.nodes = [
    ...ground.nodes.slice(0, 2),
    nodeInfo('left', { ...away, copies: 1 }),
    nodeInfo('gone', away),
    nodeInfo('silent', { ...away, silent: true }),
  ];
  const listed = async (...more: readonly string[]): Promise<readonly string[]> => {
    const { stdout } = await ground.quorate('node', 'list', '--json', ...more);
    const nodes: readonly NodeInfo[] = JSON.parse(stdout);
    return nodes.map(({ nodeId }) => nodeId);
  };
  assert.deepEqual(await listed(), ['a', 'b', 'left', 'silent']);
  assert.deepEqual(await listed('--all'), ['a', 'b', 'gone', 'left', 'silent']);
  const shown = await ground.quorate('node', 'list');
  assert.doesNotMatch(shown.stdout, /gone/);
  assert.match(shown.stderr, /^2 of 4 nodes can take copies; fewer than /m);
  const all = await ground.quorate('node', 'list', '--all');
  assert.match(all.stdout, /^gone +away +removed /m);
});

test('a node that takes nothing new although it runs is told of, with why and what to do', async (t) => {
  const ground = await openNodes(t);
  const problem = 'the disk of /data is full: less than 64 MiB are left; make room on it';
  ground.nodes = [...ground.nodes.slice(0, 2), nodeInfo('c', { problem })];
  const listed = await ground.quorate('node', 'list');
  assert.equal(
    listed.stderr,
    `c: ${problem}\n2 of 3 nodes can take copies; fewer than replication.factor (3)\n`,
  );
  const nodes: readonly NodeInfo[] = JSON.parse(
    (await ground.quorate('node', 'list', '--json')).stdout,
  );
  assert.deepEqual(
    nodes.map((node) => node.problem),
    [undefined, undefined, problem],
  );
  const { stdout } = await ground.quorate('status');
  assert.match(stdout, /^storage nodes: +3 of 3 alive; 2 can take copies, fewer than /m);
  assert.ok(
    stdout.split('\n').some((line) => /^problem of c: +/.test(line) && line.endsWith(problem)),
  );
});

test('copies that could not be filled, or whose disk was put back, and settings in which front-ends differ, are told of', async (t) => {
  const ground = await openNodes(t);
  const { cluster } = ground.scene.backend;
  assert.ok(cluster !== undefined);
  const reason = 'nothing came of it for 10 minutes';
  cluster.fillsGivenUp = () =>
    Promise.resolve([{ repository: 'team/app', nodeId: 'c', times: 2, reason }]);
  const values = [
    { value: '3', frontEnds: ['a', 'b'] },
    { value: '5', frontEnds: ['c'] },
  ];
  cluster.differingSettings = () => Promise.resolve([{ name: 'replication.factor', values }]);
  cluster.copiesBehind = () => Promise.resolve({ b: 2, c: 1 });
  const { stdout } = await ground.quorate('status');
  assert.match(stdout, /^copies put back: +2 on b, 1 on c: they lack pushes they had/m);
  assert.match(
    stdout,
    /^copy not filled: +team\/app on c: given up \(2\), nothing came of it for 10 minutes; it is tried again$/m,
  );
  assert.match(
    stdout,
    /^settings differ: +replication\.factor: 3 \(a, ?b\), 5 \(c\); give all front-ends the same$/m,
  );
  const { cluster: told } = JSON.parse((await ground.quorate('status', '--json')).stdout);
  assert.deepEqual(told.settingsDiffer, [{ name: 'replication.factor', values }]);
  assert.deepEqual(told.fillsGivenUp, [{ repository: 'team/app', nodeId: 'c', times: 2, reason }]);
});

test('removing a node passes on whether somebody insists, and says what is next', async (t) => {
  const ground = await openNodes(t);
  const { cluster } = ground.scene.backend;
  assert.ok(cluster !== undefined);
  const removed: unknown[] = [];
  ground.scene.backend.cluster = {
    ...cluster,
    remove: (nodeId, { force }) => {
      removed.push([nodeId, force]);
      if (!force) throw new QuorateError('failed-precondition', `${nodeId} is alive: drain it`);
      ground.nodes = ground.nodes.map((node) =>
        node.nodeId === nodeId ? { ...node, mark: 'removed' } : node,
      );
      return Promise.resolve();
    },
  };
  const refused = await ground.quorate('node', 'remove', 'c');
  assert.deepEqual(
    [refused.exitCode, refused.stdout, refused.stderr],
    [1, '', 'quorate: c is alive: drain it\n'],
  );
  const done = await ground.quorate('node', 'remove', 'c', '--force');
  assert.equal(done.exitCode, 0, done.stderr);
  assert.match(done.stdout, /^c is removed; its copies are made elsewhere\n$/);
  assert.match(done.stderr, /^c still runs: stop it now\n/);
  assert.match(
    done.stderr,
    /2 of 3 nodes can take copies; fewer than replication\.factor \(3\): copies that .* stay\n$/,
  );
  const json = await ground.quorate('node', 'remove', 'c', '--force', '--json');
  assert.deepEqual([JSON.parse(json.stdout), json.stderr], [{ nodeId: 'c', mark: 'removed' }, '']);
  assert.deepEqual(removed, [
    ['c', false],
    ['c', true],
    ['c', true],
  ]);
});

function copyOf(nodeId: string, copy: Partial<CopyFound>): CopyFound {
  const told = { generation: undefined, silent: false, named: true, trouble: undefined };
  return { nodeId, storeId: nodeId, ...told, ...copy };
}

/** A repository with a copy that cannot be read. */
function unread(nodeId: string): HeadFound {
  const copies = [
    copyOf('node-1', { generation: 2 }),
    copyOf(nodeId, { generation: 1, trouble: 'EIO' }),
  ];
  return { ...waiting(nodeId), verdict: 'behind', copies };
}

/** A repository with a copy that does not answer. */
function waiting(nodeId: string): HeadFound {
  return {
    repositoryId: 'r',
    name: 'team/app',
    verdict: 'unreachable',
    headGeneration: 1,
    generation: 2,
    copies: [
      copyOf('node-1', { generation: 2 }),
      copyOf(nodeId, { silent: true, trouble: 'it is not there' }),
    ],
  };
}

/** A repository of which less than a majority is left. */
function lost(): HeadFound {
  return { ...waiting('node-2'), verdict: 'majority-lost', copies: [] };
}

/** A repository whose latest copy is where the record does not say. */
function astray(nodeId: string): HeadFound {
  const { copies, ...rest } = waiting(nodeId);
  const moved = copies.map((copy) => {
    return copy.nodeId === nodeId
      ? { ...copy, generation: 2, silent: false, named: false }
      : { ...copy, generation: undefined };
  });
  return { ...rest, verdict: 'moved', copies: moved };
}

test('a recovery that was applied names who is to be started again, until all were', async (t) => {
  for (const { recovered, says, hints = /^$/ } of [
    { recovered: {}, says: /\nnothing is frozen\n$/ },
    {
      recovered: { frozen: 'old' },
      says: /\nnothing was changed; quorate recover --apply does it\n$/,
    },
    {
      recovered: { frozen: 'old', applied: true, restart: { members: ['front-1', 'node-1'] } },
      says: /\napplied; restart these: front-1, node-1\n$/,
    },
    {
      recovered: { frozen: 'recovered', restart: { members: ['node-1'] } },
      says: /\napplied; restart these: node-1\n$/,
    },
    {
      recovered: { frozen: 'recovered', restart: { members: [] } },
      says: /\napplied; now start this server again\n$/,
    },
    {
      recovered: { found: [waiting('node-2')] },
      says: /\nnothing can be raised as it is\n$/,
      hints:
        /^nothing to go by from node-2, which .* of team\/app: it is not there\nstart them.*; quorate node remove NODE for those that /,
    },
    {
      recovered: { frozen: 'old', found: [waiting('node-2')] },
      says: /\nnothing was changed; .* nothing but "behind", "moved" and "unfinished" is found, or with --force, /,
      hints:
        /^nothing to go by from node-2, .*\nstart them.*; those that will not come back can be removed /,
    },
    {
      recovered: {
        frozen: 'old',
        found: [lost()],
      },
      says: /\nnothing was changed; .* or with --force, which leaves the others as they are\n$/,
      hints:
        /^most copies of team\/app are gone for good, .*: --apply --force goes .* quorate repo recover team\/app goes on from what is left/,
    },
    {
      recovered: { frozen: 'old', found: [astray('node-3'), astray('node-3')] },
      says: /\nnothing was changed; quorate recover --apply does it\n$/,
      hints: /^node-3 has the latest of 2 repositories that the coordinator does not know /,
    },
    {
      recovered: {
        frozen: 'old',
        nodes: [
          { nodeId: 'node-1', copies: 12, trouble: undefined },
          { nodeId: 'node-4', copies: undefined, trouble: 'it took too long' },
        ],
        unheard: ['node-4'],
      },
      says: /^NODE    COPIES\nnode-1  12\nnode-4  no answer\n\n[^]*\nnothing was changed; /,
      hints:
        /^node-4 does not say what it holds, which might be the latest of anything: it took too long\n$/,
    },
    {
      recovered: { frozen: 'old', found: [unread('node-2')] },
      says: /\nnothing was changed; quorate recover --apply does it\n$/,
      hints: /^node-2 cannot read its copies of 1 repository, which .* team\/app for one: EIO\n$/,
    },
    {
      recovered: { unrecorded: ['a', 'b', 'c', 'd', 'e', 'f'] },
      says: /\nnothing is frozen\n$/,
      hints: /^6 repositories on the disks, .*: a, b, c, d, e, \.\.\.; they stay there/,
    },
    { recovered: { applied: true }, says: /\nrecovered; the repositories are served again\n$/ },
  ]) {
    const scene = await ApiScene.open({ recovered });
    t.after(() => scene.close());
    const env = {
      QUORATE_URL: scene.url,
      QUORATE_TOKEN: await scene.token('root', { admin: true }),
    };
    const { stdout, stderr } = await runQuorate(['recover'], { env });
    assert.match(stdout, says, stderr);
    assert.match(stderr, hints);
  }
});
