import type { IRangeRequest, IResponseHeader, ITxnRequest } from 'etcd3';
import { asQuorateError, QuorateError } from '../../contract/errors.js';
import type { OperationAnswer, RangeAnswer, RangePage } from './kv-messages.js';

/** Ranges in one request: below etcd's 128 operations. A reading that has more goes alone. */
const maxRanges = 120;

/** Asks etcd, as often as it takes: `MemberPool.repeat`. */
export interface Asking {
  range(request: IRangeRequest): Promise<RangePage>;
  txn(request: ITxnRequest): Promise<{
    readonly header: IResponseHeader;
    readonly responses: readonly Pick<OperationAnswer, 'response_range'>[];
  }>;
}

export interface ReadAnswer {
  readonly header: IResponseHeader;
  /** One for each range, in order, all of one revision. */
  readonly ranges: readonly RangeAnswer[];
}

interface Reading {
  readonly ranges: readonly IRangeRequest[];
  readonly settle: (answer: ReadAnswer) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * Linearizable reads that are asked for within one turn of the main loop go out as one request, and what several of
 * them ask for is asked for once: a request costs etcd and this process a millisecond, a further range some 20 us.
 * Nothing joins a request that is out already, since that may be answered with less than what was acknowledged when
 * the read was asked for.
 */
export class ReadBatches {
  readonly #asking: Asking;
  #waiting: Reading[] = [];
  #scheduled = false;

  constructor(asking: Asking) {
    this.#asking = asking;
  }

  /** Ranges that are read together, at one revision. At most 128, each with a limit, or small. Fails as `MemberPool.repeat`. */
  read(ranges: readonly IRangeRequest[]): Promise<ReadAnswer> {
    return new Promise((settle, fail) => {
      this.#waiting.push({ ranges, settle, fail });
      if (this.#scheduled) return;
      this.#scheduled = true;
      setImmediate(() => this.#sendAll());
    });
  }

  #sendAll(): void {
    this.#scheduled = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    while (waiting.length > 0) void this.#send(takeBatch(waiting));
  }

  async #send(batch: readonly Reading[]): Promise<void> {
    try {
      await this.#ask(batch);
    } catch (error) {
      // What etcd refuses one of them must not fail the others.
      const alone = batch.length === 1 || asQuorateError(error).code === 'unavailable';
      if (alone) for (const { fail } of batch) fail(error);
      else for (const reading of batch) void this.#send([reading]);
    }
  }

  async #ask(batch: readonly Reading[]): Promise<void> {
    const [only] = batch;
    const [range, ...others] = only?.ranges ?? [];
    if (only !== undefined && range !== undefined && batch.length + others.length === 1) {
      const answer = await this.#asking.range(range);
      only.settle({ header: answer.header, ranges: [answer] });
      return;
    }
    const places = new Map<string, number>();
    const asked: IRangeRequest[] = [];
    const wanted = batch.map(({ ranges }) => ranges.map((one) => placeOf(one, places, asked)));
    const success = asked.map((one) => ({ request_range: one }));
    const answer = await this.#asking.txn({ compare: [], success, failure: [] });
    batch.forEach(({ settle, fail }, index) => {
      const ranges = (wanted[index] ?? []).flatMap(
        (place) => answer.responses[place]?.response_range ?? [],
      );
      if (ranges.length === wanted[index]?.length) settle({ header: answer.header, ranges });
      else fail(new QuorateError('internal', 'etcd answered too little'));
    });
  }
}

/** Takes from the front what fits into one request, at least one reading. */
function takeBatch(waiting: Reading[]): readonly Reading[] {
  let count = 0;
  let ranges = 0;
  for (const reading of waiting) {
    ranges += reading.ranges.length;
    if (count > 0 && ranges > maxRanges) break;
    count++;
  }
  return waiting.splice(0, count);
}

function placeOf(
  range: IRangeRequest,
  places: Map<string, number>,
  asked: IRangeRequest[],
): number {
  const name = nameOf(range);
  const known = places.get(name);
  if (known !== undefined) return known;
  places.set(name, asked.length);
  asked.push(range);
  return asked.length - 1;
}

/** Distinct for distinct ranges. */
function nameOf({ key, range_end: end, limit, keys_only: keysOnly }: IRangeRequest): string {
  const text = `${key?.toString('latin1') ?? ''}${end?.toString('latin1') ?? ''}`;
  return `${key?.length ?? 0} ${end?.length ?? -1} ${limit ?? 0} ${keysOnly ?? false} ${text}`;
}
