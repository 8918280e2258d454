import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from '../local/testing/local-fixture.js';
import { fanOut, type Receiver } from './fan-out.js';

const partBytes = 256 * 1024;

/** A stall is over at once. */
const clock = {
  ...systemClock,
  sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(Math.min(ms, 20), signal),
};

async function takeAll(stream: AsyncIterable<Uint8Array>): Promise<number> {
  let sizeBytes = 0;
  for await (const { byteLength } of stream) sizeBytes += byteLength;
  return sizeBytes;
}

test('what a receiver was left behind with is kept no longer, though its disk lets it not end', async () => {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  assert.ok(typeof collect === 'function');
  const sent: WeakRef<ArrayBufferLike>[] = [];
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let part = 0; part < 4; part++) {
      const bytes = new Uint8Array(partBytes).fill(part);
      sent.push(new WeakRef(bytes.buffer));
      yield bytes;
    }
  }
  let goesOn: (() => void) | undefined;
  const hung: Receiver<number> = {
    name: 'hung',
    receive: async (stream) => {
      await new Promise<void>((resolve) => (goesOn = resolve));
      return takeAll(stream);
    },
  };
  const sound = ['a', 'b'].map((name): Receiver<number> => ({ name, receive: takeAll }));
  // The clock's own timers keep no process running.
  const running = setInterval(() => undefined, 1_000);
  const { received, failed } = await fanOut({
    source: source(),
    receivers: [hung, ...sound],
    suffices: (names) => names.size >= 2,
    signal: new AbortController().signal,
    clock,
  }).finally(() => clearInterval(running));
  assert.deepEqual([...received.values()], [4 * partBytes, 4 * partBytes]);
  assert.deepEqual([...failed.keys()], ['hung']);
  // What the stack of this turn holds goes with it.
  await turn();
  collect();
  await turn();
  collect();
  const kept = sent.filter((bytes) => bytes.deref() !== undefined).length;
  goesOn?.();
  assert.equal(kept, 0);
});
