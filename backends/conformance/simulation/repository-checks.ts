import type { Oid } from '../../contract/objects.js';
import { checkHistory, differences, type ModelState } from './checker.js';
import { missingFrom, presentCopy } from './store-inspection.js';
import type { World } from './world.js';

const initialHead = 'refs/heads/main';

/**
 * Every repository that there ever was: every voter has the one state that the log made, with all its objects, and
 * clients were told of no other. Forks come after their sources, whose refs they begin with.
 */
export function checkRepositories(world: World): void {
  // Of one that nobody read, and that is gone, nobody knows which of them it was.
  const states = new Map<string, readonly ModelState[]>();
  for (const id of world.observer.births.keys()) {
    const verdicts = beginningsOf(world, id, states).map((beginning) =>
      judge(world, id, beginning),
    );
    // A fork may begin with any that its source had while it was made: one of them explains everything.
    const [best] = verdicts.toSorted((a, b) => a.complaints.length - b.complaints.length);
    if (best === undefined) {
      world.violate(`nobody made the repository ${id}`);
      continue;
    }
    if (best.complaints.length > 0) {
      for (const { complaints } of verdicts) world.say(`it may be that ${complaints.join('; ')}`);
    }
    const possible = verdicts.filter((one) => one.complaints.length === best.complaints.length);
    states.set(
      id,
      possible.flatMap((one) => one.states),
    );
    for (const complaint of best.complaints) world.violate(complaint);
  }
}

function beginningsOf(
  { observer, history }: World,
  id: string,
  states: ReadonlyMap<string, readonly ModelState[]>,
): readonly ModelState[] {
  const birth = observer.births.get(id);
  if (birth === undefined) return [];
  if (birth.generation === 0) return [{ generation: 0, head: initialHead, refs: new Map() }];
  const fork = history.forks.find(({ name }) => name === birth.configuration.name);
  if (fork === undefined) return [];
  const from = observer.generationAt(fork.sourceId, fork.startMs);
  const to = observer.generationAt(fork.sourceId, birth.atMs);
  return (states.get(fork.sourceId) ?? [])
    .filter(({ generation }) => generation >= from && generation <= to)
    .map(({ head, refs }) => ({
      generation: 1,
      head: fork.visible(head) ? head : initialHead,
      refs: new Map([...refs].filter(([ref]) => fork.visible(ref))),
    }));
}

function judge(
  world: World,
  repositoryId: string,
  beginning: ModelState,
): { readonly states: readonly ModelState[]; readonly complaints: readonly string[] } {
  const { observer, history, stores } = world;
  const complaints: string[] = [];
  const tell = (text: string): unknown => complaints.push(text);
  const states = checkHistory(history, observer, { repositoryId, beginning }, tell);
  const last = states.at(-1);
  // Stores of a deleted one give it up one after the other.
  if (last === undefined || history.deleted.has(repositoryId)) return { states, complaints };
  const voters = observer.configurations.get(repositoryId)?.voters ?? new Map<string, string>();
  for (const { name, disk, storeId } of stores) {
    if (storeId === undefined || !voters.has(storeId)) continue;
    const copy = presentCopy(disk, repositoryId);
    if (copy.generation !== last.generation) {
      tell(`${name} ended at generation ${copy.generation}, not ${last.generation}`);
    }
    for (const difference of differences(last.refs, copy.refs)) tell(`${name}: ${difference}`);
    if (copy.head !== `ref: ${last.head}`) tell(`${name} has HEAD ${copy.head}, not ${last.head}`);
    const missing: readonly Oid[] = missingFrom(copy.objects, copy.refs.values());
    if (missing.length > 0) tell(`${name} lacks the objects ${missing.join()}`);
  }
  return { states, complaints };
}
