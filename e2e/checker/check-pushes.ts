import type { RecordedPush, RecordedUpdate } from './push-journal.js';
import { zeroOid } from './push-journal.js';

/** Ref -> object id, for each repository that exists. */
export type Refs = ReadonlyMap<string, ReadonlyMap<string, string>>;

interface Move extends RecordedUpdate {
  readonly push: RecordedPush;
}

/**
 * Judges what clients recorded between two moments at which nobody pushed, against the refs at these moments. Each ref
 * is a register that changes by compare-and-swap, and no value is written to it twice, so that the moves that took
 * place form one path from the first value to the last: every acknowledged move lies on it, no refused one does, and
 * one without a verdict may. Returns what is wrong, in sentences; nothing when all is well.
 */
export function checkPushes(
  before: Refs,
  pushes: readonly RecordedPush[],
  after: Refs,
): readonly string[] {
  const problems: string[] = [];
  const applied = new Set<RecordedUpdate>();
  for (const [name, moves] of groupByRef(pushes, before, after)) {
    const [repository = '', ref = ''] = name.split(' ');
    const first = before.get(repository)?.get(ref) ?? zeroOid;
    const last = after.get(repository)?.get(ref) ?? zeroOid;
    const path = new RefPath(moves, first, last);
    for (const problem of path.problems()) problems.push(`${repository} ${ref}: ${problem}`);
    for (const { push, ...rest } of path.applied) applied.add(original(push, rest));
  }
  for (const push of pushes) {
    const problem = push.atomic ? halfApplied(push, applied) : undefined;
    if (problem !== undefined) problems.push(problem);
  }
  return problems;
}

function original(push: RecordedPush, { ref, new: value }: RecordedUpdate): RecordedUpdate {
  const found = push.updates.find((update) => update.ref === ref && update.new === value);
  if (found === undefined) throw new Error('a move belongs to its push');
  return found;
}

/** Also refs that nobody says to have pushed: those may not have changed. */
function groupByRef(pushes: readonly RecordedPush[], ...moments: Refs[]): Map<string, Move[]> {
  const groups = new Map<string, Move[]>();
  const group = (repository: string, ref: string): Move[] => {
    const name = `${repository} ${ref}`;
    const moves = groups.get(name) ?? [];
    groups.set(name, moves);
    return moves;
  };
  for (const refs of moments) {
    for (const [repository, values] of refs)
      for (const ref of values.keys()) group(repository, ref);
  }
  for (const push of pushes) {
    for (const update of push.updates) group(push.repository, update.ref).push({ ...update, push });
  }
  return groups;
}

class RefPath {
  readonly applied = new Set<Move>();
  readonly #moves: readonly Move[];
  readonly #first: string;
  readonly #last: string;

  constructor(moves: readonly Move[], first: string, last: string) {
    this.#moves = moves;
    this.#first = first;
    this.#last = last;
    for (const move of moves) if (move.verdict === 'acknowledged') this.applied.add(move);
    this.#settleUnknown();
  }

  /** A move without a verdict took place if its value is the last one, or if another move started from it. */
  #settleUnknown(): void {
    const unknown = new Set(this.#moves.filter(({ verdict }) => verdict === 'unknown'));
    for (let size = -1; size !== this.applied.size;) {
      size = this.applied.size;
      for (const move of unknown) {
        const seen =
          move.new === zeroOid
            ? move.old !== this.#last && this.#isReached(move.old) && !this.#isLeft(move.old)
            : move.new === this.#last || this.#isLeft(move.new);
        if (!seen) continue;
        unknown.delete(move);
        this.applied.add(move);
      }
    }
  }

  #isReached(value: string): boolean {
    return value === this.#first || [...this.applied].some((move) => move.new === value);
  }

  #isLeft(value: string): boolean {
    return [...this.applied].some((move) => move.old === value);
  }

  *problems(): Generator<string> {
    const arrivals = count([this.#first, ...[...this.applied].map((move) => move.new)]);
    const departures = count([...[...this.applied].map((move) => move.old), this.#last]);
    for (const value of new Set([...arrivals.keys(), ...departures.keys()])) {
      const surplus = (arrivals.get(value) ?? 0) - (departures.get(value) ?? 0);
      if (surplus > 0) yield `${told(value)} was acknowledged or found before, and is lost`;
      if (surplus < 0 && value === this.#last) yield this.#unexplained();
      else if (surplus < 0)
        yield `a push that started from ${told(value)} won, which was not there`;
    }
    const reachable = this.#reachable();
    for (const move of this.applied) {
      if (reachable.has(move.old) || !arrivals.has(move.old)) continue;
      yield `a push that started from ${told(move.old)} won, which no path leads to`;
    }
  }

  #reachable(): ReadonlySet<string> {
    const reachable = new Set([this.#first]);
    for (let size = 0; size !== reachable.size;) {
      size = reachable.size;
      for (const move of this.applied) if (reachable.has(move.old)) reachable.add(move.new);
    }
    return reachable;
  }

  #unexplained(): string {
    const refused = this.#moves.find(
      (move) => move.verdict === 'refused' && move.new === this.#last,
    );
    return refused === undefined
      ? `it is ${told(this.#last)}, which nobody's pushes explain`
      : `it is ${told(this.#last)}, which was refused to ${refused.push.client}`;
  }
}

function halfApplied(push: RecordedPush, applied: ReadonlySet<RecordedUpdate>): string | undefined {
  const done = push.updates.filter((update) => applied.has(update));
  if (done.length === 0 || done.length === push.updates.length) return undefined;
  return (
    `${push.repository}: of an atomic push of ${push.client} only ` +
    `${done.map(({ ref }) => ref).join(' and ')} took place`
  );
}

function count(values: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function told(value: string): string {
  return value === zeroOid ? 'its absence' : value;
}
