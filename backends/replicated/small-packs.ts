import type { IncomingPack } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import { type ErrorCode, QuorateError } from '../contract/errors.js';
import type { StoredSettings } from '../contract/settings.js';

/** A pack that goes to the stores with the request to prepare: small, and here as a whole. */
export interface SmallPack {
  readonly bytes: Uint8Array;
  /** The settings by which it is taken, from those of the repository. */
  readonly settings: (stored: StoredSettings) => StoredSettings;
  /** Store id -> bytes that it takes there, of the stores that are known to have it. */
  readonly takenBy: Map<string, number>;
}

/** Codes that the pusher is told of as the reason of a failed unpack; anything else is an error of the request. */
export const packProblems: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
  'storage-failure',
  'data-corrupt',
]);

/** Whether a store that was asked to prepare did not take the pack that came with that. */
export function isPackProblem({ code, details }: QuorateError): boolean {
  return 'pack' in details && packProblems.has(code);
}

/** Whether it is trouble of a store's own disk: no fault of the pack, and of use with the name of the store only. */
export function isOwnTrouble({ code }: QuorateError): boolean {
  return code === 'storage-failure';
}

/** A pack that is small and here, or all of it as a stream. */
export type Incoming =
  | { readonly whole: Buffer; readonly release: () => void }
  | { readonly stream: AsyncIterable<Uint8Array> };

/** Nearly every push of people. A larger one takes the stores long enough that its locks had better wait for that. */
const maxBytes = 256 * 1024;
/** What comes later may come slowly: no lock is held while a client sends. */
const withinMs = 20;
/** Kept by all pushes while they wait for their locks; one that finds no room is streamed. */
const budgetBytes = 64 * 1024 * 1024;

/** Tells the packs that are small and here at once from the others. */
export class SmallPacks {
  readonly #clock: Pick<Clock, 'sleep'>;
  #keptBytes = 0;

  constructor(clock: Pick<Clock, 'sleep'>) {
    this.#clock = clock;
  }

  /** Rejects with `cancelled` when the pack breaks off at once. */
  async receive(pack: IncomingPack): Promise<Incoming> {
    const whole = pack.takeWhole?.();
    const chunks = pack[Symbol.asyncIterator]();
    if (whole !== undefined) return this.#keep([whole], whole.byteLength, chunks);
    const taken: Uint8Array[] = [];
    let sizeBytes = 0;
    const timer = new AbortController();
    const late = this.#clock.sleep(withinMs, timer.signal).then(() => 'late' as const);
    try {
      while (sizeBytes <= maxBytes) {
        const next = chunks.next();
        const result = await Promise.race([next, late]);
        if (result === 'late') return { stream: resumed(taken, chunks, next) };
        if (result.done === true) return this.#keep(taken, sizeBytes, chunks);
        taken.push(result.value);
        sizeBytes += result.value.byteLength;
      }
      return { stream: resumed(taken, chunks) };
    } catch (cause) {
      if (cause instanceof QuorateError) throw cause;
      throw new QuorateError('cancelled', 'the pack broke off', { cause });
    } finally {
      timer.abort('over');
    }
  }

  #keep(
    taken: readonly Uint8Array[],
    sizeBytes: number,
    chunks: AsyncIterator<Uint8Array>,
  ): Incoming {
    const isSmall = sizeBytes <= maxBytes && this.#keptBytes + sizeBytes <= budgetBytes;
    if (!isSmall) return { stream: resumed(taken, chunks) };
    this.#keptBytes += sizeBytes;
    let released = false;
    return {
      whole: joined(taken),
      release: () => {
        if (!released) this.#keptBytes -= sizeBytes;
        released = true;
      },
    };
  }
}

function joined(chunks: readonly Uint8Array[]): Buffer {
  const [only] = chunks;
  if (chunks.length !== 1 || only === undefined) return Buffer.concat(chunks);
  return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
}

/** All chunks again, with one that is awaited already. */
function resumed(
  taken: readonly Uint8Array[],
  chunks: AsyncIterator<Uint8Array>,
  awaited?: Promise<IteratorResult<Uint8Array>>,
): AsyncIterable<Uint8Array> {
  // Whoever reads on is told; perhaps nobody does.
  awaited?.catch(() => undefined);
  const before: (IteratorResult<Uint8Array> | Promise<IteratorResult<Uint8Array>>)[] = [
    ...taken.map((value) => ({ done: false as const, value })),
    ...(awaited === undefined ? [] : [awaited]),
  ];
  return {
    [Symbol.asyncIterator]: () => ({
      next: async () => before.shift() ?? chunks.next(),
      return: async () => (await chunks.return?.()) ?? { done: true as const, value: undefined },
    }),
  };
}
