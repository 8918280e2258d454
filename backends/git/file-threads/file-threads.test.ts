import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { Logger } from '../../contract/environment.js';
import {
  type FileStep,
  maxTailBytes,
  noRoomCode,
  otherNamesCode,
  otherTextCode,
  takeFileSteps,
  type TakeFileSteps,
} from '../file-steps.js';
import { FileThreads } from './file-threads.js';
import { until } from '../../contract/testing/until.js';

const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};

let directory: string;
let threads: FileThreads;
const at = (...names: readonly string[]): string => join(directory, ...names);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'quorate-file-steps-'));
  threads = new FileThreads({ logger: silent });
});

afterEach(async () => {
  await threads.close();
  rmSync(directory, { recursive: true });
});

const ways: Readonly<Record<string, () => TakeFileSteps>> = {
  'threads of their own': () => threads.take,
  "Node's thread pool": () => takeFileSteps,
};

for (const [way, taker] of Object.entries(ways)) {
  describe(`file steps by ${way}`, () => {
    test('each step does what it says, one after another', async () => {
      await taker()([
        { do: 'need-room', path: directory, bytes: 1 },
        { do: 'mkdir', path: at('made') },
        { do: 'write', path: at('made', 'file'), text: 'longer text' },
        { do: 'write', path: at('made', 'file'), text: 'text', sync: true },
        { do: 'link', from: at('made', 'file'), to: at('link') },
        { do: 'link', from: at('made', 'file'), to: at('link') },
        { do: 'rename', from: at('made', 'file'), to: at('renamed') },
        { do: 'overwrite', path: at('link'), text: 'T' },
        { do: 'sync', path: at('renamed') },
        { do: 'sync', path: at('made') },
        { do: 'expect-names', path: at('made'), names: [] },
        { do: 'expect-names', path: directory, names: ['renamed', 'made', 'link'] },
        { do: 'rmdir', path: at('made') },
      ]);
      await taker()([
        { do: 'expect-text', path: at('renamed'), text: 'Text' },
        { do: 'expect-absent', path: at('absent') },
        { do: 'expect-absent', path: at('absent', 'absent') },
      ]);
      assert.deepEqual(readdirSync(directory).toSorted(), ['link', 'renamed']);
      assert.equal(readFileSync(at('renamed'), 'utf8'), 'Text');
    });

    test('directories are for us alone', async () => {
      await taker()([{ do: 'mkdir', path: at('made') }]);
      assert.equal(statSync(at('made')).mode & 0o777, 0o700);
    });

    test('what may be missing may', async () => {
      await taker()([
        { do: 'unlink', path: at('absent') },
        { do: 'unlink', path: at('absent', 'absent') },
        { do: 'rmdir', path: at('absent') },
        { do: 'sync', path: at('absent'), ifThere: true },
      ]);
    });

    const failing: readonly (readonly [string, FileStep])[] = [
      ['ENOENT', { do: 'sync', path: '/absent/absent' }],
      ['ENOENT', { do: 'rename', from: '/absent/absent', to: '/absent/other' }],
      ['ENOENT', { do: 'overwrite', path: '/absent/absent', text: '' }],
      ['ENOENT', { do: 'link', from: '/absent/absent', to: '/absent/other' }],
      ['EEXIST', { do: 'mkdir', path: '/' }],
      [otherNamesCode, { do: 'expect-names', path: '/', names: [] }],
      [otherNamesCode, { do: 'expect-names', path: '/', names: [...readdirSync('/'), 'absent'] }],
      ['ENOENT', { do: 'expect-names', path: '/absent', names: [] }],
      [otherTextCode, { do: 'expect-text', path: '/proc/self/comm', text: '' }],
      ['ENOENT', { do: 'expect-text', path: '/absent', text: '' }],
      ['EEXIST', { do: 'expect-absent', path: '/' }],
      [noRoomCode, { do: 'need-room', path: '/', bytes: Infinity }],
    ];
    for (const [code, step] of failing) {
      test(`${step.do} fails with ${code}, and what follows is not done`, async () => {
        const steps = [step, { do: 'mkdir', path: at('after') } as const];
        await assert.rejects(taker()(steps), { code });
        assert.equal(existsSync(at('after')), false);
      });
    }

    test('what is written over a file leaves the rest of it, unless that is much', async () => {
      const short = 'x'.repeat(maxTailBytes + 2);
      const long = 'x'.repeat(maxTailBytes + 3);
      await taker()([
        { do: 'write', path: at('short'), text: short },
        { do: 'write', path: at('long'), text: long },
        { do: 'overwrite', path: at('short'), text: 'yy' },
        { do: 'overwrite', path: at('long'), text: 'yy' },
      ]);
      assert.equal(readFileSync(at('short'), 'utf8'), `yy${short.slice(2)}`);
      assert.equal(readFileSync(at('long'), 'utf8'), 'yy');
    });
  });
}

test('more than the threads take goes on beside them', async () => {
  const names = Array.from({ length: 40 }, (_, index) => String(index));
  await Promise.all(
    names.map((name) => threads.take([{ do: 'write', path: at(name), text: name, sync: true }])),
  );
  for (const name of names) assert.equal(readFileSync(at(name), 'utf8'), name);
});

test('threads that have nothing to do end, and come again', async () => {
  await threads.close();
  threads = new FileThreads({ logger: silent, idleMs: 1 });
  await threads.take([{ do: 'mkdir', path: at('one') }]);
  await until('they end', () => threads.open === 0);
  await threads.take([{ do: 'mkdir', path: at('two') }]);
  assert.deepEqual(readdirSync(directory).toSorted(), ['one', 'two']);
});

test('what was begun ends before the threads do, and later steps still have a way', async () => {
  const begun = threads.take([{ do: 'write', path: at('begun'), text: 'text', sync: true }]);
  await threads.close();
  await begun;
  await threads.take([{ do: 'mkdir', path: at('later') }]);
  assert.equal(existsSync(at('later')), true);
});

test('a text that is too much for a thread is written all the same', async () => {
  const text = 'x'.repeat(40 * 1024 * 1024);
  await threads.take([{ do: 'write', path: at('large'), text }]);
  assert.equal(statSync(at('large')).size, text.length);
});

const program = new URL('./thread.js', import.meta.url);

/** Ends before it is online, as for want of memory: with a heap too small for that, Node 24 ends the whole process. */
class NeverRan extends Worker {
  override emit(event: string, ...facts: unknown[]): boolean {
    return event === 'online' ? false : super.emit(event, ...facts);
  }
}

const shortOf: Readonly<Record<string, () => Worker>> = {
  threads: () => {
    throw Object.assign(new Error('cannot start'), { code: 'ERR_WORKER_INIT_FAILED' });
  },
  memory: () => new NeverRan("throw new Error('no room')", { eval: true }),
};

for (const [what, start] of Object.entries(shortOf)) {
  test(`a machine that is short of ${what} for a moment takes all steps, and has threads again`, async () => {
    await threads.close();
    let tries = 0;
    let isShort = true;
    threads = new FileThreads({
      logger: silent,
      pauseMs: 50,
      start: () => {
        tries += 1;
        return isShort ? start() : new Worker(program);
      },
    });
    await threads.take([{ do: 'mkdir', path: at('one') }]);
    assert.equal(threads.open, 0);
    isShort = false;
    await until('a thread', async () => {
      await threads.take([{ do: 'write', path: at('other'), text: '' }]);
      return threads.open === 1;
    });
    assert.equal(tries, 2);
    assert.deepEqual(readdirSync(directory).toSorted(), ['one', 'other']);
  });
}

test('threads that cannot be had are not tried again with each push', async () => {
  await threads.close();
  let tries = 0;
  threads = new FileThreads({
    logger: silent,
    pauseMs: 1_000_000,
    start: () => {
      tries += 1;
      throw new Error('none');
    },
  });
  for (const name of ['one', 'two', 'three']) await threads.take([{ do: 'mkdir', path: at(name) }]);
  assert.equal(tries, 1);
});
