import type { Clock } from '../contract/environment.js';
import { asQuorateError, type ErrorCode, QuorateError } from '../contract/errors.js';
import { PackSource } from '../git/pack-source.js';
import { isOwnTrouble } from './small-packs.js';

/** One receiver of a stream that goes to several. */
export interface Receiver<T> {
  readonly name: string;
  /** Reads the stream to its end, or fails. */
  readonly receive: (stream: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<T>;
}

export interface FanOut<T> {
  readonly source: AsyncIterable<Uint8Array>;
  readonly receivers: readonly Receiver<T>[];
  /** Whether it could still go well with these receivers alone. */
  readonly suffices: (names: ReadonlySet<string>) => boolean;
  /** Whether a receiver says of itself that its disk hangs: after half a minute of it nobody waits, though the others are too few. */
  readonly hangs?: (name: string) => boolean;
  /** What is thrown then, and when what is left is too few for trouble of their own that some of several told of. */
  readonly tooFew?: (
    left: ReadonlySet<string>,
    errors: ReadonlyMap<string, QuorateError>,
  ) => QuorateError;
  readonly signal: AbortSignal;
  readonly clock: Pick<Clock, 'sleep' | 'monotonicMs'>;
}

export interface FanOutResult<T> {
  readonly received: ReadonlyMap<string, T>;
  readonly failed: ReadonlyMap<string, QuorateError>;
}

/** What one receiver may be behind the others: with some pushes at once this is memory of the front-end. */
const maxLagBytes = 4 * 1024 * 1024;
/** A receiver that takes nothing for so long while the others wait for it is left behind, if it can be spared. */
const stallMs = 3_000;
/** Half a minute, as `nothingToWaitFor` has it: what this very push writes and syncs can keep all the disks busy. */
const hangingStalls = 10;
/** So long whoever fails waits for the receivers to stop: one in this process whose disk hangs does not. */
const endingMs = 1_000;
const awayCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['unavailable', 'deadline-exceeded']);

/**
 * Sends one stream to several receivers at the pace of the slowest that still counts. Resolves once every receiver
 * has ended, or enough of them have and the others lag. Rejects when the source fails, or when the failures leave too
 * few: then every receiver is ended first. What one receiver cannot take another may: its own disk may lack something.
 */
export async function fanOut<T>(options: FanOut<T>): Promise<FanOutResult<T>> {
  return new FanOutRun(options).run();
}

class FanOutRun<T> {
  readonly #options: FanOut<T>;
  /** Times in a row that nothing happened, and all who were waited for said that their disks hang. */
  #hangingStalls = 0;
  /** Nothing was to be expected of those that were waited for. */
  #isStuck = false;
  readonly #lanes: readonly Lane<T>[];

  constructor(options: FanOut<T>) {
    this.#options = options;
    this.#lanes = options.receivers.map((receiver) => new Lane(receiver));
  }

  async run(): Promise<FanOutResult<T>> {
    const { signal } = this.#options;
    const endAll = (): void => {
      for (const lane of this.#lanes)
        lane.leave(new QuorateError('cancelled', 'the push was given up'));
    };
    signal.addEventListener('abort', endAll, { once: true });
    if (signal.aborted) endAll();
    try {
      for (const lane of this.#lanes) void lane.start();
      await this.#pump();
      for (const lane of this.#lanes) lane.end();
      await this.#settle();
    } catch (error) {
      endAll();
      await this.#ended();
      throw error;
    } finally {
      signal.removeEventListener('abort', endAll);
    }
    return {
      received: new Map(
        this.#lanes.flatMap(({ name, result }) =>
          result === undefined ? [] : [[name, result.value]],
        ),
      ),
      failed: new Map(
        this.#lanes.flatMap(({ name, error }) => (error === undefined ? [] : [[name, error]])),
      ),
    };
  }

  async #ended(): Promise<void> {
    const over = new AbortController();
    const all = Promise.all(this.#lanes.map((lane) => lane.ended));
    await Promise.race([all, this.#options.clock.sleep(endingMs, over.signal)]);
    over.abort('over');
  }

  /** Whoever gives up does not wait for a client that is silent. */
  async #pump(): Promise<void> {
    const source = new PackSource(this.#options.source, 0, this.#options.signal);
    try {
      for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
        for (const lane of this.#lanes) lane.push(chunk);
        this.#check();
        while (this.#lanes.some((lane) => lane.full)) await this.#waitForRoom();
      }
    } finally {
      source.stop();
    }
  }

  /** Waits until something moves; a lane that does not, for long, is left behind. */
  async #waitForRoom(): Promise<void> {
    const full = this.#lanes.filter((lane) => lane.full);
    await this.#orStalled(Promise.race(full.map((lane) => lane.moved())), full);
    this.#check();
  }

  /** Waits for those that have not ended; once enough have, or they hang, the others get the time of a stall to follow. */
  async #settle(): Promise<void> {
    for (;;) {
      this.#check();
      const open = this.#lanes.filter((lane) => lane.open);
      if (open.length === 0) return;
      await this.#orStalled(Promise.race(open.map((lane) => lane.ended)), open);
    }
  }

  /** Leaves `waitedFor` behind when nothing happens for long and the others suffice, or nothing is to be expected. */
  async #orStalled(happens: Promise<unknown>, waitedFor: readonly Lane<T>[]): Promise<void> {
    const { clock, suffices, hangs = () => false } = this.#options;
    const timer = new AbortController();
    const stalled = await Promise.race([
      happens.then(() => false),
      clock.sleep(stallMs, timer.signal).then(() => true),
    ]);
    timer.abort('over');
    const isHanging = stalled && waitedFor.every(({ name }) => hangs(name));
    this.#hangingStalls = isHanging ? this.#hangingStalls + 1 : 0;
    if (!stalled) return;
    const rest = this.#lanes.filter(
      (lane) => !waitedFor.includes(lane) && lane.error === undefined,
    );
    if (suffices(new Set(rest.map(({ name }) => name)))) {
      for (const lane of waitedFor) {
        lane.leave(new QuorateError('deadline-exceeded', 'the storage node did not keep up'));
      }
    } else if (this.#hangingStalls >= hangingStalls) {
      this.#isStuck = true;
      for (const lane of waitedFor) lane.leave(new QuorateError('unavailable', 'its disk hangs'));
    }
  }

  /** Throws when it cannot go well any more. */
  #check(): void {
    const { suffices, tooFew } = this.#options;
    const errors = this.#lanes.flatMap(({ error }) => (error === undefined ? [] : [error]));
    const isAlone = this.#lanes.length === 1;
    const left = this.#lanes.flatMap(({ name, error }) => (error === undefined ? [name] : []));
    const heard = errors.filter(({ code }) => !awayCodes.has(code));
    // A receiver that is away says nothing about the stream, nor does one about its own disk.
    const ofStream = heard.find((error) => isAlone || !isOwnTrouble(error));
    const told = ofStream ?? heard[0] ?? errors[0];
    if (told === undefined || suffices(new Set(left))) return;
    const isNamed = heard.length > 0 ? ofStream === undefined : this.#isStuck;
    if (!isNamed || tooFew === undefined) throw told;
    const known = this.#lanes.flatMap(({ name, error }) =>
      error === undefined ? [] : [[name, error] as const],
    );
    throw tooFew(new Set(left), new Map(known));
  }
}

/** One receiver with what it has not read yet. */
class Lane<T> {
  readonly name: string;
  readonly ended: Promise<void>;
  result: { readonly value: T } | undefined;
  error: QuorateError | undefined;
  readonly #receiver: Receiver<T>;
  readonly #aborting = new AbortController();
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #complete = false;
  #wake: (() => void) | undefined;
  readonly #movers: (() => void)[] = [];
  #settle: () => void = () => undefined;

  constructor(receiver: Receiver<T>) {
    this.name = receiver.name;
    this.#receiver = receiver;
    this.ended = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** Neither received nor failed. */
  get open(): boolean {
    return this.result === undefined && this.error === undefined;
  }

  get full(): boolean {
    return this.open && this.#bytes >= maxLagBytes;
  }

  /** Never rejects. */
  async start(): Promise<void> {
    try {
      const value = await this.#receiver.receive(this.#stream(), this.#aborting.signal);
      if (this.error === undefined) this.result = { value };
    } catch (error) {
      this.error ??= asQuorateError(error);
    }
    this.#finish();
  }

  push(chunk: Uint8Array): void {
    if (!this.open) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#wake?.();
  }

  end(): void {
    this.#complete = true;
    this.#wake?.();
  }

  /** Resolves when it reads, or ends. */
  moved(): Promise<void> {
    return new Promise((resolve) => this.#movers.push(resolve));
  }

  leave(why: QuorateError): void {
    if (!this.open) return;
    this.error = why;
    this.#aborting.abort();
    this.#wake?.();
    this.#drop();
    this.#move();
  }

  async *#stream(): AsyncGenerator<Uint8Array> {
    for (;;) {
      if (this.error !== undefined) throw this.error;
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#bytes -= chunk.length;
        this.#move();
        yield chunk;
      } else if (this.#complete) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    }
  }

  #finish(): void {
    this.#drop();
    this.#settle();
    this.#move();
  }

  /** Nobody reads it any more; a receiver whose disk hangs ends much later, and one push after another would keep it. */
  #drop(): void {
    this.#chunks.length = 0;
    this.#bytes = 0;
  }

  #move(): void {
    for (const resolve of this.#movers.splice(0)) resolve();
  }
}
