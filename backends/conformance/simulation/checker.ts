import type { Oid } from '../../contract/objects.js';
import type { CommitObserver, ObservedEntry } from './commit-observer.js';
import type { History, HeadOperation, PushOperation, ReadOperation } from './history.js';
import { zeroOid } from './pack-model.js';

/** The refs of a repository after each generation, as the plainest reading of the log gives them. */
export interface ModelState {
  readonly generation: number;
  readonly head: string;
  readonly refs: ReadonlyMap<string, Oid>;
}

export interface CheckedRepository {
  readonly repositoryId: string;
  /** What it began with. */
  readonly beginning: ModelState;
}

type Tell = (text: string) => void;

/**
 * Judges what clients were told against what the coordinator decided, by code that shares nothing with the
 * implementation: one order of commits explains every answer, in real time too, and every value that was seen. Returns
 * what there was after each of them.
 */
export function checkHistory(
  history: History,
  observer: CommitObserver,
  { repositoryId, beginning }: CheckedRepository,
  tell: Tell,
): readonly ModelState[] {
  const entries = observer.entries.get(repositoryId) ?? [];
  const operations = history.operations.filter((one) => one.repositoryId === repositoryId);
  const pushes = operations.filter((one) => one.kind === 'push');
  const states = replay(entries, beginning, tell);
  checkPushes(pushes, entries, {
    tell,
    recovered: history.recovered.has(repositoryId),
  });
  const heads = operations.filter((one) => one.kind === 'head');
  checkHeads(heads, entries, beginning.head, tell);
  for (const read of operations.filter((one) => one.kind === 'read')) {
    checkRead(read, observer, states, tell);
  }
  return states;
}

/** Every entry must follow from the one before, or the one that it names, as one change of all its refs. */
function replay(
  entries: readonly ObservedEntry[],
  beginning: ModelState,
  tell: Tell,
): ModelState[] {
  let { head, refs } = beginning;
  const states = [beginning];
  for (const { generation, pushId, updates, newHead, after } of entries) {
    const basis = after === undefined ? undefined : states.find((one) => one.generation === after);
    if (basis !== undefined) ({ head, refs } = basis);
    else if (after !== undefined) tell(`push ${pushId} follows ${after}, which there never was`);
    const next = new Map(refs);
    for (const { ref, oldOid, newOid } of updates) {
      const current = refs.get(ref) ?? zeroOid;
      if (current !== oldOid) {
        tell(
          `push ${pushId} changed ${ref} from ${short(oldOid)} when it was at ${short(current)}`,
        );
      }
      if (newOid === zeroOid) next.delete(ref);
      else next.set(ref, newOid);
    }
    for (const name of next.keys()) {
      const inside = [...next.keys()].find((other) => other.startsWith(`${name}/`));
      if (inside !== undefined) tell(`after push ${pushId} both ${name} and ${inside} exist`);
    }
    if (newHead !== undefined && 'symref' in newHead) head = newHead.symref;
    refs = next;
    states.push({ generation, head, refs });
  }
  return states;
}

/** Acknowledged implies exactly one entry with just these refs, between question and answer; refused implies none. */
function checkPushes(
  pushes: readonly PushOperation[],
  entries: readonly ObservedEntry[],
  { tell, recovered }: { readonly tell: Tell; readonly recovered: boolean },
): void {
  const byPush = new Map(entries.map((entry) => [entry.pushId, entry]));
  const known = new Set(pushes.map(({ pushId }) => pushId));
  for (const { pushId, newHead } of entries) {
    if (newHead !== undefined || known.has(pushId)) continue;
    if (recovered && pushId.startsWith('recover-')) continue;
    tell(`nobody made the push ${pushId}`);
  }
  for (const push of pushes) {
    const entry = byPush.get(push.pushId);
    if (entry !== undefined) checkEntryOf(push, entry, tell);
    const { answer } = push;
    if (answer.status === 'unknown') continue;
    if (answer.status === 'failed') {
      if (entry !== undefined)
        tell(`push ${push.pushId} failed (${answer.code}), and is in the log`);
      // A fault of ours: every trouble that the world can make has a code of its own.
      if (answer.code === 'internal') tell(`push ${push.pushId} failed: ${answer.message}`);
      continue;
    }
    if (answer.ok.size === 0) {
      if (entry !== undefined) tell(`push ${push.pushId} was refused, and is in the log`);
      continue;
    }
    if (entry === undefined) {
      tell(`push ${push.pushId} was acknowledged, and is not in the log`);
      continue;
    }
    const logged = new Set(entry.updates.map(({ ref }) => ref));
    const same = logged.size === answer.ok.size && [...answer.ok].every((ref) => logged.has(ref));
    if (!same) {
      tell(
        `push ${push.pushId} was told of ${[...answer.ok].join()}, the log has ${[...logged].join()}`,
      );
    }
    if (answer.generation !== entry.generation) {
      tell(`push ${push.pushId} was told generation ${answer.generation}, not ${entry.generation}`);
    }
  }
}

function checkEntryOf(push: PushOperation, entry: ObservedEntry, tell: Tell): void {
  // Who was told that nobody knows may see it happen later: a transaction can be on its way for long.
  const endMs = push.answer.status === 'unknown' ? Infinity : push.endMs;
  if (entry.atMs < push.startMs || entry.atMs > endMs) {
    tell(`push ${push.pushId} was committed at ${entry.atMs}, outside its time`);
  }
  for (const { ref, newOid } of entry.updates) {
    const command = push.commands.find((one) => one.ref === ref);
    if (command?.newOid !== newOid) tell(`push ${push.pushId} did not ask for ${ref}`);
  }
  if (push.atomic && entry.updates.length !== push.commands.length) {
    tell(`the atomic push ${push.pushId} was committed in part`);
  }
}

function checkHeads(
  heads: readonly HeadOperation[],
  entries: readonly ObservedEntry[],
  initialHead: string,
  tell: Tell,
): void {
  for (const { branch, answer, endMs } of heads) {
    if (answer !== 'done') continue;
    // It may have been so already: then some entry, or the beginning, made it so before.
    const explained = entries.some(
      ({ newHead, atMs }) =>
        newHead !== undefined && 'symref' in newHead && newHead.symref === branch && atMs <= endMs,
    );
    if (!explained && branch !== initialHead)
      tell(`HEAD was set to ${branch}, and the log does not say so`);
  }
}

/** A read shows one generation, whole, and no older one than it was promised. */
function checkRead(
  read: ReadOperation,
  observer: CommitObserver,
  states: readonly ModelState[],
  tell: Tell,
): void {
  const name = `a read at ${read.startMs.toFixed(1)}`;
  const { oldest } = read;
  const newest = observer.generationAt(read.repositoryId, read.endMs);
  if (read.generation < oldest) {
    tell(`${name} shows generation ${read.generation}, but it has to show ${oldest} or later`);
  }
  if (read.generation > newest) {
    tell(`${name} shows generation ${read.generation}, but only ${newest} was committed`);
  }
  if (read.foreign.length > 0) tell(`${name} finds ${read.foreign.join()} of another repository`);
  if (read.missing.length > 0) tell(`${name}: objects of ${read.missing.join()} are missing`);
  const state = states.find(({ generation }) => generation === read.generation);
  if (state === undefined) return;
  for (const difference of differences(state.refs, read.refs)) {
    tell(`${name} of generation ${read.generation}: ${difference}`);
  }
  const head = 'symref' in read.head ? read.head.symref : read.head.oid;
  if (head !== state.head) tell(`${name} shows HEAD at ${head}, not ${state.head}`);
}

/** In words, where two sets of refs differ. */
export function differences(
  expected: ReadonlyMap<string, Oid>,
  actual: ReadonlyMap<string, Oid>,
): readonly string[] {
  const names = new Set([...expected.keys(), ...actual.keys()]);
  return [...names].flatMap((name) => {
    const [one, other] = [expected.get(name), actual.get(name)];
    return one === other ? [] : [`${name} is ${short(other)}, not ${short(one)}`];
  });
}

function short(oid: Oid | undefined): string {
  return oid === undefined ? 'absent' : oid.slice(0, 8);
}
