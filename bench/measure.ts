import { setTimeout as delay } from 'node:timers/promises';
import type { Case, Operation, Prepared } from './case.js';
import type { Peer } from './peers/peer.js';
import type { CpuAccounting } from './cpu-accounting.js';
import { treeMemoryBytes } from './process-tree.js';

/** One measurement of one peer; figures are per operation. */
export interface Sample {
  readonly round: number;
  readonly operations: number;
  readonly wallMs: number;
  /** Server CPU, user and system, until the client was done; absent where it cannot be told. */
  readonly cpuMs?: number;
  /** Server CPU until the server was idle again; pushes only. */
  readonly cpuUntilIdleMs?: number;
  /** Resident memory of the server's processes right after, with what they share counted in each. */
  readonly memoryBytes: number;
}

/** What became of a peer in a case. */
export interface Measured {
  readonly peer: Peer;
  readonly samples: readonly Sample[];
  /** Why it has none, or no more. */
  readonly failure?: string;
}

/** For processes that end just after the client has its answer. */
const reapMs = 20;
const pollMs = 100;
/** A repack of the large repository takes seconds; something is wrong with what takes this long. */
const maxBusyMs = 90_000;

interface MeasureOptions {
  readonly round: number;
  readonly pushes: boolean;
  readonly cpu: CpuAccounting;
}

async function measure(
  operation: Operation,
  peer: Peer,
  { round, pushes, cpu }: MeasureOptions,
): Promise<Sample> {
  await operation.before?.();
  const cpuBefore = cpu.seconds(peer);
  const startedAt = performance.now();
  const operations = await operation.timed();
  const wallMs = performance.now() - startedAt;
  const memoryBytes = treeMemoryBytes(peer.pids);
  await delay(reapMs);
  const cpuAfter = cpu.seconds(peer);
  if (pushes) await untilIdle(peer, cpu);
  const cpuIdle = cpu.seconds(peer);
  await operation.after?.();
  const perOperation = (seconds: number): number => (seconds * 1000) / operations;
  return {
    round,
    operations,
    wallMs: wallMs / operations,
    ...(cpuBefore === undefined || cpuAfter === undefined
      ? {}
      : { cpuMs: perOperation(cpuAfter - cpuBefore) }),
    ...(cpuBefore === undefined || cpuIdle === undefined || !pushes
      ? {}
      : { cpuUntilIdleMs: perOperation(cpuIdle - cpuBefore) }),
    memoryBytes,
  };
}

/** Resolves when the server has done next to nothing for as long as it may hesitate before background work. */
async function untilIdle(peer: Peer, cpu: CpuAccounting): Promise<void> {
  const giveUpAt = performance.now() + maxBusyMs;
  let used = cpu.seconds(peer) ?? 0;
  let quietSince = performance.now();
  while (performance.now() - quietSince < peer.quietMs && performance.now() < giveUpAt) {
    await delay(pollMs);
    const now = cpu.seconds(peer) ?? 0;
    // Timers and the like: at most a tick of 10 ms in a poll.
    if (now - used > 0.015) quietSince = performance.now();
    used = now;
  }
}

export interface InterleaveOptions {
  readonly prepared: Prepared;
  readonly peers: readonly Peer[];
  readonly cpu: CpuAccounting;
  /** Rounds before those that count: programs compiled at run time are slow at first, caches are cold. */
  readonly warmUps: number;
  readonly rounds: number;
  /** No round begins after this long, but the first that counts. */
  readonly budgetMs: number;
  readonly progress: (message: string) => void;
}

/**
 * Measures the peers in turn, A B C, B C A, ...: what disturbs the machine for a while disturbs all alike. A peer that
 * fails is left out from then on.
 */
export async function interleave(
  { pushes }: Pick<Case, 'pushes'>,
  options: InterleaveOptions,
): Promise<readonly Measured[]> {
  const samples = new Map<Peer, Sample[]>(options.peers.map((peer) => [peer, []]));
  const failures = new Map<Peer, string>();
  const endsAt = performance.now() + options.budgetMs;
  const { warmUps } = options;
  for (let round = 0; round < warmUps + options.rounds; round++) {
    if (round > warmUps && performance.now() > endsAt) break;
    for (let turn = 0; turn < options.peers.length; turn++) {
      const peer = options.peers[(turn + round) % options.peers.length];
      if (peer === undefined || failures.has(peer)) continue;
      const name =
        round < warmUps ? 'warming up' : `round ${round - warmUps + 1} of ${options.rounds}`;
      options.progress(`${name}, ${peer.name}`);
      try {
        const operation = options.prepared(peer, round);
        const sample = await measure(operation, peer, {
          round,
          pushes: pushes === true,
          cpu: options.cpu,
        });
        if (round >= warmUps) samples.get(peer)?.push(sample);
      } catch (error) {
        failures.set(peer, error instanceof Error ? error.message : String(error));
      }
    }
  }
  return options.peers.map((peer) => {
    const failure = failures.get(peer);
    return {
      peer,
      samples: samples.get(peer) ?? [],
      ...(failure === undefined ? {} : { failure }),
    };
  });
}
