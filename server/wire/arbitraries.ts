/** What the codec tests share: generators of protocol values, and byte streams cut at arbitrary places. */
import * as fc from 'fast-check';
import type { Capability } from './capabilities.js';
import { PktReader } from './pkt-line.js';
import { WireError } from './wire-error.js';

/** A record with Object's prototype, as `deepEqual` wants. */
export function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record<T>(model, { noNullPrototype: true });
}

export const oid: fc.Arbitrary<string> = fc
  .uint8Array({ minLength: 20, maxLength: 20 })
  .map((bytes) => Buffer.from(bytes).toString('hex'));

export const refName: fc.Arbitrary<string> = fc
  .array(fc.stringMatching(/^[A-Za-z0-9é日_-]{1,12}$/), { minLength: 1, maxLength: 4 })
  .map((parts) => `refs/${parts.join('/')}`);

/** Text that fits on a line: no LF, no NUL. */
export const lineText: fc.Arbitrary<string> = fc.stringMatching(/^[ -~é日]{1,40}$/);

export const capability: fc.Arbitrary<Capability> = fc
  .tuple(fc.stringMatching(/^[a-z][a-z0-9-]{0,11}$/), fc.option(fc.stringMatching(/^[!-~]{0,12}$/)))
  .map(([name, value]) => (value === null ? { name } : { name, value }));

export const capabilities: fc.Arbitrary<readonly Capability[]> = fc.array(capability, {
  minLength: 1,
  maxLength: 8,
});

/** Sizes of the chunks that a stream arrives in; the last is repeated. */
export const chunkSizes: fc.Arbitrary<readonly number[]> = fc.array(
  fc.integer({ min: 1, max: 700 }),
  { minLength: 1, maxLength: 6 },
);

export async function* chunked(
  bytes: Uint8Array,
  sizes: readonly number[] = [bytes.length],
): AsyncGenerator<Uint8Array, void, undefined> {
  let from = 0;
  for (let index = 0; from < bytes.length; index += 1) {
    const size = Math.max(1, sizes[Math.min(index, sizes.length - 1)] ?? 1);
    yield bytes.subarray(from, from + size);
    from += size;
  }
}

export function readerOf(bytes: string | Uint8Array, sizes?: readonly number[]): PktReader {
  return new PktReader(chunked(typeof bytes === 'string' ? Buffer.from(bytes) : bytes, sizes));
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

/** Runs a codec on hostile input: whatever it makes of it, it fails with nothing but a WireError. */
export async function onlyWireErrors(run: () => unknown): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
  }
}

/** Bytes that look like pkt-lines now and then, so that fuzzing gets past the framing. */
export const hostilePackets: fc.Arbitrary<Buffer> = fc
  .array(
    fc.oneof(
      fc.constantFrom('0000', '0001', '0002', '0003', '0004', 'fff1', '00', 'zzzz'),
      fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
      fc
        .tuple(
          fc.constantFrom(
            'want ',
            'have ',
            'shallow ',
            'command=',
            'oid ',
            'unpack ',
            'ok ',
            'ng ',
            '',
          ),
          fc.oneof(oid, fc.string({ maxLength: 30 }), lineText),
          fc.constantFrom('', '\n', '\0report-status', ' refs/heads/x', '^{}'),
        )
        .map((parts) => parts.join(''))
        .map((text) => (Buffer.byteLength(text) + 4).toString(16).padStart(4, '0') + text),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.from(parts.join('')));
