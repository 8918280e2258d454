/** What goes at the pace of somebody else takes as long as it takes. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, mock, test } from 'node:test';
import { createPackIndexer } from './indexer.js';
import { packMissing } from './object-transfer.js';
import type { PackIndexer } from './pack-indexer.js';
import { createFixture, idleMeter, silentLogger, type Fixture } from './testing/indexer-fixture.js';

const hourMs = 3_600_000;
/** More than pipes and sockets hold. */
const sizeBytes = 8 * 1024 * 1024;

let fixture: Fixture;
let indexer: PackIndexer;
let blob: string;
let pack: Buffer;

before(async () => {
  fixture = await createFixture();
  const { git } = fixture;
  indexer = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 0 });
  blob = fixture.write('blob', randomBytes(sizeBytes));
  pack = fixture.run(['pack-objects', '--stdout', '-q'], `${blob}\n`);
});

after(async () => {
  await indexer.close();
  await fixture.close();
});

/** Gives a pack in pieces, some time apart. */
async function* slowly(pauseMs: number): AsyncGenerator<Uint8Array> {
  const pieceBytes = Math.ceil(pack.length / 8);
  for (let at = 0; at < pack.length; at += pieceBytes) {
    if (at > 0) mock.timers.tick(pauseMs);
    yield pack.subarray(at, at + pieceBytes);
  }
}

for (const [desc, pauseMs, code] of [
  ['is indexed, however long it is on its way', 0.9 * hourMs, undefined],
  ['is given up when nothing comes of it for an hour', 1.1 * hourMs, 'deadline-exceeded'],
] as const) {
  test(`a pack that comes slowly ${desc}`, async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      assert.equal((await fixture.index(indexer, slowly(pauseMs))).code, code);
    } finally {
      mock.timers.reset();
    }
  });
}

test('a pack for another store is sent to its end, however long that takes', async () => {
  const { git, gitDir } = fixture;
  const { signal } = new AbortController();
  const objects = { info: () => Promise.resolve([]) };
  const sent = await packMissing({ git, objects, gitDir, tips: [blob], have: [], signal });
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    let bytes = 0;
    for await (const part of sent ?? []) {
      if (bytes === 0) mock.timers.tick(20 * hourMs);
      bytes += part.byteLength;
    }
    assert.equal(bytes, pack.length);
  } finally {
    mock.timers.reset();
  }
});
