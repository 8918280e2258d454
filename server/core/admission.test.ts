import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { writeCommandList } from '../wire/command-list.js';
import { pktText } from '../wire/pkt-line.js';
import { acceptAll, codeOf, FakeService, oidOf, type Talk } from './fake-service.js';
import { planPack } from './pack-memory.js';

const tip = oidOf('a');
const refs = [{ name: 'refs/heads/main', oid: tip }];
const want = `${pktText(`want ${tip} side-band-64k ofs-delta\n`)}0000${pktText('done\n')}`;
const stateless = { service: 'git-upload-pack', mode: 'stateless' } as const;
const session = { service: 'git-upload-pack', mode: 'session' } as const;

const packStart = Buffer.from('PACK\0\0\0\x02\0\0\0\0');
const pack = Buffer.concat([packStart, createHash('sha1').update(packStart).digest()]);
const push = Buffer.concat([
  Buffer.from(
    writeCommandList({
      commands: [{ oldOid: oidOf('0'), newOid: oidOf('b'), ref: 'refs/heads/new' }],
      capabilities: [{ name: 'report-status' }, { name: 'side-band-64k' }],
      shallow: [],
    }),
  ),
  pack,
]);
const pushOver = {
  http: { service: 'git-receive-pack', mode: 'stateless' },
  ssh: { service: 'git-receive-pack', mode: 'session' },
} as const;

/** Nobody may wait, and one push of a user runs at a time. */
const noQueue = { queueLength: 0, gitProcesses: 1 };

function retryAfter({ error }: Talk): unknown {
  return error instanceof QuorateError ? error.details['retryAfterSeconds'] : undefined;
}

/** A service whose first push stays until `finish` is called. */
function busyWithPush(admission: object): {
  readonly ground: FakeService;
  readonly begin: (transport: 'http' | 'ssh') => Promise<Talk>;
  readonly finish: () => void;
} {
  const events = new EventEmitter();
  const finished = once(events, 'finish');
  let pushes = 0;
  const ground = new FakeService({
    refs,
    admission,
    push: async (request) => {
      pushes += 1;
      events.emit('pushed');
      if (pushes === 1) await finished;
      return acceptAll(request);
    },
  });
  const begin = async (transport: 'http' | 'ssh'): Promise<Talk> => {
    const began = once(events, 'pushed');
    const talk = ground.talk(pushOver[transport], push);
    await began;
    return talk;
  };
  return { ground, begin, finish: () => events.emit('finish') };
}

for (const transport of ['http', 'ssh'] as const) {
  const other = transport === 'http' ? 'ssh' : 'http';
  test(`a push beyond the places of ${transport} is refused in its form; ${other} has its own`, async () => {
    const { ground, begin, finish } = busyWithPush(noQueue);
    const first = begin(transport);
    await new Promise((resolve) => setImmediate(resolve));
    const refused = await ground.talk(pushOver[transport], push);
    const words = 'too many pushes are running and waiting: try again in a moment';
    if (transport === 'http') {
      assert.equal(codeOf(refused.error), 'resource-exhausted');
      assert.equal(retryAfter(refused), 30);
      assert.equal(refused.output.length, 0);
    } else {
      assert.match(refused.output.toString(), new RegExp(`unpack ${words}`));
      assert.match(refused.output.toString(), new RegExp(`ng refs/heads/new ${words}`));
    }
    const meanwhile = await ground.talk(pushOver[other], push);
    assert.equal(meanwhile.outcome?.status, 'ok');
    finish();
    assert.equal((await first).outcome?.status, 'ok');
    assert.equal((await ground.talk(pushOver[transport], push)).outcome?.status, 'ok');
  });
}

test('requests beyond a number at once are refused: of one user, one address, on one repository', async () => {
  for (const [limit, otherwise] of [
    ['requestsPerPrincipal', { principal: { kind: 'anonymous' } }],
    ['requestsPerAddress', { remoteAddress: '192.0.2.9' }],
    ['requestsPerRepository', { path: '/team/other.git' }],
  ] as const) {
    const admission = { queueLength: 0, [limit]: 1 };
    const { begin, finish, ground: busy } = busyWithPush(admission);
    const first = begin('http');
    await new Promise((resolve) => setImmediate(resolve));
    const refused = await busy.talk(stateless, want);
    assert.equal(codeOf(refused.error), 'resource-exhausted', limit);
    assert.equal(retryAfter(refused), 30);
    const { error } = await busy.talk({ ...stateless, ...otherwise }, want);
    assert.notEqual(codeOf(error), 'resource-exhausted', `${limit}: somebody else is served`);
    assert.equal((await busy.talk({ ...session, protocol: 0 }, want)).outcome?.status, 'ok');
    finish();
    assert.equal((await first).outcome?.status, 'ok');
    assert.equal((await busy.talk(stateless, want)).outcome?.status, 'ok');
    assert.ok(
      busy.audited.some(({ event, outcome }) => event === 'limit' && outcome === 'refused'),
      `${limit} is audited`,
    );
  }
});

test('requests beyond a rate are refused when they are opened', async () => {
  for (const limit of ['ratePerPrincipal', 'ratePerAddress', 'ratePerRepository']) {
    const ground = new FakeService({ refs, admission: { [limit]: 2 } });
    for (let n = 0; n < 2; n += 1) {
      assert.equal((await ground.talk(stateless, want)).outcome?.status, 'ok');
    }
    const refused = await ground.talk(stateless, want);
    assert.equal(codeOf(refused.error), 'resource-exhausted', limit);
    assert.equal(retryAfter(refused), 30, 'two a minute: the next one in half of it');
    assert.equal((await ground.talk({ ...session, protocol: 0 }, want)).outcome?.status, 'ok');
  }
});

test('a place is given back whatever became of the fetch', async () => {
  const ground = new FakeService({
    refs,
    admission: { queueLength: 0, gitProcesses: 1, packMemoryBytes: 1 },
    answer: () => ({ stdout: 'garbage', exitCode: 1 }),
  });
  for (let n = 0; n < 5; n += 1) {
    const { error } = await ground.talk(stateless, want);
    assert.notEqual(codeOf(error), 'resource-exhausted');
    const gone = new AbortController();
    gone.abort();
    await ground.talk({ ...stateless, signal: gone.signal }, want);
    await ground.talk(stateless, pktText(`want ${oidOf('f')} side-band-64k\n`));
  }
  assert.equal((await ground.talk(stateless, want)).outcome?.status, 'error');
});

const MIB = 1024 ** 2;

function bytesOf(
  objectCount: number,
  packCount: number,
  options: { readonly alone?: boolean; readonly partial?: boolean } = {},
): number {
  const how = { alone: false, partial: false, ...options };
  return planPack({ objectCount, packCount }, how).memoryBytes;
}

test('a clone of a large repository counts for more, and one of several packs for more still', () => {
  assert.equal(Math.round(bytesOf(100, 1) / MIB), 6);
  assert.equal(Math.round(bytesOf(100, 10) / MIB), 54);
  assert.equal(Math.round(bytesOf(1_000_000, 1) / MIB), 229);
  assert.equal(Math.round(bytesOf(1_000_000, 1, { partial: true }) / MIB), 86);
  assert.ok(bytesOf(100, 10, { alone: true }) >= bytesOf(100, 10));
  const { config } = planPack({ objectCount: 1, packCount: 1 }, { alone: false, partial: false });
  assert.equal(config['pack.threads'], '1');
});
