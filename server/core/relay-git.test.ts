import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { GitStream } from '../../backends/contract/backend.js';
import { flushPkt, pktText, writePkt } from '../wire/pkt-line.js';
import { writeSideBand } from '../wire/side-band.js';
import { ClientOutput } from './client-output.js';
import { PktTracker } from './pkt-tracker.js';
import { relayGit } from './relay-git.js';
import { withWantedRefs } from './wanted-refs.js';

function gitSaying(stdout: string | Buffer, exitCode: number): GitStream & { killed: boolean } {
  const stream = new PassThrough();
  stream.end(stdout);
  return {
    stdout: stream,
    exited: Promise.resolve({ exitCode, signal: null, stderr: 'fatal: x' }),
    killed: false,
    kill() {
      this.killed = true;
      stream.destroy();
    },
  };
}

const cases: readonly {
  desc: string;
  said: string | Buffer;
  exitCode: number;
  heard: string | Buffer;
  errorTold: boolean;
}[] = [
  {
    desc: 'a good answer passes as it is',
    said: `${pktText('NAK\n')}0000`,
    exitCode: 0,
    heard: `${pktText('NAK\n')}0000`,
    errorTold: false,
  },
  {
    desc: 'silence becomes an ERR packet',
    said: '',
    exitCode: 128,
    heard: pktText('ERR broke'),
    errorTold: true,
  },
  {
    desc: "git's own ERR packet is left alone",
    said: pktText('ERR upload-pack: not our ref'),
    exitCode: 128,
    heard: pktText('ERR upload-pack: not our ref'),
    errorTold: true,
  },
  {
    desc: 'in the pack the client is told on side-band 3',
    said: Buffer.concat([writePkt('packfile\n'), writeSideBand(1, Buffer.from('PACK'))]),
    exitCode: 128,
    heard: Buffer.concat([
      writePkt('packfile\n'),
      writeSideBand(1, Buffer.from('PACK')),
      writeSideBand(3, Buffer.from('broke')),
      flushPkt,
    ]),
    errorTold: true,
  },
  {
    desc: 'right behind the packfile header too',
    said: pktText('packfile\n'),
    exitCode: 1,
    heard: Buffer.concat([
      writePkt('packfile\n'),
      writeSideBand(3, Buffer.from('broke')),
      flushPkt,
    ]),
    errorTold: true,
  },
  {
    desc: 'inside a packet nothing can be said',
    said: '0010abc',
    exitCode: 137,
    heard: '0010abc',
    errorTold: false,
  },
  {
    desc: 'inside a pack without side-bands nothing can be said',
    said: `${pktText('NAK\n')}PACK....`,
    exitCode: 128,
    heard: `${pktText('NAK\n')}PACK....`,
    errorTold: false,
  },
];

for (const { desc, said, exitCode, heard, errorTold } of cases) {
  test(`when git fails: ${desc}`, async () => {
    const client = new PassThrough();
    const output = new ClientOutput(client, new AbortController().signal);
    const relayed = await relayGit(gitSaying(said, exitCode), output, { failure: 'broke' });
    client.end();
    assert.deepEqual(Buffer.concat(await client.toArray()), Buffer.from(heard));
    assert.equal(relayed.errorTold, errorTold);
    assert.equal(relayed.exitCode, exitCode);
  });
}

test('a client that leaves ends git', async () => {
  const abort = new AbortController();
  const client = new PassThrough({ highWaterMark: 1 });
  const git = gitSaying(writeSideBand(1, Buffer.alloc(100_000)), 0);
  const output = new ClientOutput(client, abort.signal);
  const relaying = relayGit(git, output, { failure: 'broke' });
  abort.abort();
  await assert.rejects(relaying, { code: 'cancelled' });
  assert.ok(git.killed);
});

test('the tracker sees the same however the stream is cut', () => {
  const bytes = Buffer.concat([
    Buffer.from(`${pktText('ACK\n')}0001${pktText('packfile\n')}`),
    writeSideBand(1, Buffer.alloc(300)),
    writeSideBand(3, Buffer.from('x')),
  ]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: bytes.length })), (cuts) => {
      const tracker = new PktTracker();
      let from = 0;
      for (const cut of cuts.sort((a, b) => a - b)) {
        tracker.see(bytes.subarray(from, cut));
        from = cut;
      }
      tracker.see(bytes.subarray(from));
      assert.ok(tracker.atBoundary && tracker.inSideBand && tracker.errorTold);
    }),
  );
});

test('wanted-refs comes behind shallow-info and before the pack', async () => {
  const oid = 'a'.repeat(40);
  for (const band of ['', '\x01']) {
    const line = (text: string): string => pktText(`${band}${text}`);
    const answer = `${line('shallow-info\n')}${line(`shallow ${oid}\n`)}0001`;
    const pack = `${line('packfile\n')}${pktText('\x01PACK')}0000`;
    const refs = [{ name: 'refs/heads/main', oid }];
    const out = new PassThrough();
    for await (const part of withWantedRefs(PassThrough.from([Buffer.from(answer + pack)]), refs, {
      sideBandAll: band !== '',
    })) {
      out.write(part);
    }
    out.end();
    const section = `${line('wanted-refs\n')}${line(`${oid} refs/heads/main\n`)}0001`;
    assert.equal(Buffer.concat(await out.toArray()).toString(), answer + section + pack);
  }
});
