/**
 * What limits one transport's requests: how many a minute, how many at once, and the memory of what they have git do.
 * HTTP and SSH have one of these each, so that one exhausted leaves the other alone (docs/limits.md).
 */
import type { Clock, Meter } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { ClientRates, type RateLimits } from './client-rates.js';
import { addressKey } from './concurrency-limit.js';
import { type Ask, FairQueue, type QueueRefusal } from './fair-queue.js';
import type { GitRequest } from './git-request.js';

/** Of HTTP and of SSH, each. */
export interface AdmissionLimits extends RateLimits {
  /** Requests at once of one user (of one address when anonymous), of one address, on one repository. */
  readonly requestsPerPrincipal: number;
  readonly requestsPerAddress: number;
  readonly requestsPerRepository: number;
  /** Fetches at once that need a git, and pushes at once that bring a pack. */
  readonly gitProcesses: number;
  /** Estimated memory of all that makes or sends packs, in bytes. */
  readonly packMemoryBytes: number;
  /** Requests that wait for their turn in each queue, of one user. */
  readonly queueLength: number;
  /** Longest wait in a queue. */
  readonly queueTimeMs: number;
}

const MIB = 1024 ** 2;

/** What `config-table.ts` says. */
export const defaultAdmissionLimits: AdmissionLimits = {
  requestsPerPrincipal: 256,
  requestsPerAddress: 512,
  requestsPerRepository: 512,
  ratePerPrincipal: 0,
  ratePerAddress: 0,
  ratePerRepository: 0,
  gitProcesses: 64,
  packMemoryBytes: 256 * MIB,
  queueLength: 1024,
  queueTimeMs: 600_000,
};

/** Users whose queues may be full at one time. What waits is a request of some kilobytes. */
const fullQueues = 8;

/**
 * Of fetches and of pushes, what one user may have at once: whoever reads slowly holds a place for hours, and is not to
 * hold all of them.
 */
const shareOfOne = 3 / 4;

/** When to try again after a queue was full or too slow. */
const retryAfterSeconds = 30;

/** What was admitted. Give it back once. */
export interface Place {
  leave(): void;
}

type QueueName = 'requests' | 'fetches' | 'pushes';

export class Admission {
  readonly #transport: 'http' | 'ssh';
  readonly #limits: AdmissionLimits;
  readonly #meter: Meter;
  readonly #requests: FairQueue;
  readonly #fetches: FairQueue;
  readonly #pushes: FairQueue;
  readonly #rates: ClientRates;

  constructor(
    transport: 'http' | 'ssh',
    limits: AdmissionLimits,
    { clock, meter }: { readonly clock: Clock; readonly meter: Meter },
  ) {
    this.#transport = transport;
    this.#limits = limits;
    this.#meter = meter;
    this.#rates = new ClientRates(transport, limits, { clock, meter });
    const queue = (name: QueueName, capacity: number, perKey: readonly number[]): FairQueue => {
      const made = new FairQueue(
        {
          capacity,
          perKey,
          maxWaiting: fullQueues * limits.queueLength,
          maxWaitingPerKey: limits.queueLength,
          maxWaitMs: limits.queueTimeMs,
        },
        { clock, refusal: (why) => this.#queueRefusal(name, why) },
      );
      meter.gauge('queue_depth', { queue: `${transport}-${name}` }, () => made.waiting);
      return made;
    };
    this.#requests = queue('requests', Infinity, [
      limits.requestsPerPrincipal,
      limits.requestsPerAddress,
      limits.requestsPerRepository,
    ]);
    const { packMemoryBytes, gitProcesses } = limits;
    this.#fetches = queue('fetches', packMemoryBytes, [Math.floor(packMemoryBytes * shareOfOne)]);
    this.#pushes = queue('pushes', gitProcesses, [Math.ceil(gitProcesses * shareOfOne)]);
    meter.gauge('pack_memory', { transport }, () => this.#fetches.held);
  }

  /** Counts a request of whoever asks; throws `resource-exhausted` beyond the rate. */
  checkRateOfClient(request: GitRequest): void {
    this.#rates.checkAddress(request.remoteAddress);
    this.#rates.checkPrincipal(request.principal);
  }

  /** Counts a request on a repository. After authorisation: others' requests are no load of the repository. */
  checkRateOfRepository(name: string): void {
    this.#rates.checkRepository(name);
  }

  /** A place among the running requests. Waits only where there are too many. */
  request(request: GitRequest, repository: string): Promise<Place> | Place {
    const { remoteAddress, signal } = request;
    const keys = [turnKey(request), addressKey(remoteAddress), repository];
    return enter(this.#requests, { cost: 1, keys, signal }, request);
  }

  /** Room for a git that makes a pack, until that git is gone. */
  fetch(request: GitRequest, memoryBytes: number): Promise<Place> | Place {
    // No cheaper than its part of the processes, so that memory bounds their number, too.
    const { gitProcesses, packMemoryBytes } = this.#limits;
    const cost = Math.max(memoryBytes, Math.ceil(packMemoryBytes / gitProcesses));
    return this.#enterFetch(request, cost);
  }

  /** Room for the buffers of a stored pack, which needs no git. */
  storedPack(request: GitRequest, memoryBytes: number): Promise<Place> | Place {
    return this.#enterFetch(request, memoryBytes);
  }

  /** A place for a push that brings a pack: its git reads at the client's pace. */
  push(request: GitRequest): Promise<Place> | Place {
    const ask = { cost: 1, keys: [turnKey(request)], signal: request.signal };
    return enter(this.#pushes, ask, request);
  }

  /** Nothing makes a pack, and nobody waits. */
  get idle(): boolean {
    return this.#fetches.held === 0 && this.#fetches.waiting === 0;
  }

  #enterFetch(request: GitRequest, bytes: number): Promise<Place> | Place {
    const cost = Math.min(bytes, this.#limits.packMemoryBytes);
    const ask = { cost, keys: [turnKey(request)], signal: request.signal };
    return enter(this.#fetches, ask, request);
  }

  #queueRefusal(name: QueueName, why: QueueRefusal): QuorateError {
    this.#meter.count('limit_refusals', { transport: this.#transport, limit: name });
    return new QuorateError('resource-exhausted', queueWords[name][why], {
      details: { retryAfterSeconds },
    });
  }
}

const queueWords = {
  requests: {
    full: 'too many requests are running and waiting: try again in a moment',
    'too-long': 'the request waited too long for others to end: try again in a moment',
  },
  fetches: {
    full: 'too many fetches are waiting for memory: try again in a moment',
    'too-long': 'the fetch waited too long for memory: try again in a moment',
  },
  pushes: {
    full: 'too many pushes are running and waiting: try again in a moment',
    'too-long': 'the push waited too long for others to end: try again in a moment',
  },
} as const satisfies Record<QueueName, Record<QueueRefusal, string>>;

/** No user name holds a space. */
function turnKey({ principal, remoteAddress }: GitRequest): string {
  if ('name' in principal) return principal.name;
  return principal.kind === 'anonymous' ? `address ${addressKey(remoteAddress)}` : '';
}

function enter(queue: FairQueue, ask: Ask, request: GitRequest): Promise<Place> | Place {
  const waiting = queue.enter(ask);
  const place = { leave: () => queue.leave(ask) };
  return waiting === undefined ? place : holdOn(waiting, place, request);
}

async function holdOn(waiting: Promise<void>, place: Place, request: GitRequest): Promise<Place> {
  request.onHold?.(true);
  try {
    await waiting;
    return place;
  } finally {
    request.onHold?.(false);
  }
}
