import { askFrontEnd, broken } from './ask.js';
import type { LossReport } from '../../contract/cluster.js';
import { asQuorateError } from '../../contract/errors.js';
import type { Oid, RefCommand } from '../../contract/objects.js';
import type { ObservedConfiguration, ObservedEntry } from './commit-observer.js';
import type { FrontEnd } from './front-end-host.js';
import { zeroOid } from './pack-model.js';
import type { SeededRandom } from './seeded-random.js';
import { missingFrom, presentCopy, presentProgress, presentUpdates } from './store-inspection.js';
import type { StorageHost } from './hosts.js';
import type { World } from './world.js';

/** What becomes of machines that are lost: nothing, a new disk, or they come back when nobody counts on it any more. */
type Fate = 'gone' | 'replaced' | 'back';

const tendEveryMs = 2_000;

/**
 * So many stores are lost at once that sets have no majority, and somebody goes on with what is left of them
 * (`quorate repo recover`). What that may lose is what no store that is left has applied; it is kept as refs where such
 * a store has it prepared; and everything else stays (docs/architecture.md, "A majority lost for good").
 */
export class Losses {
  /** The operator has nothing left to do. */
  settled = false;
  readonly #world: World;
  readonly #random: SeededRandom;
  #lost: readonly StorageHost[] = [];
  /** Stores that are lost: their machines may get others. */
  #lostStores: ReadonlySet<string> = new Set();
  #fate: Fate;
  /** Machines that come back with new disks; some of them are lost again after that. */
  #awaited = 0;

  constructor(world: World, random: SeededRandom) {
    this.#world = world;
    this.#random = random;
    this.#fate = random.pick(['gone', 'replaced', 'back']);
  }

  /** Now, and somebody sees to it. */
  lose(lost: readonly StorageHost[]): void {
    const world = this.#world;
    const random = this.#random;
    // Sets may have been made or changed since they were chosen.
    if (!leavesCopies(world, lost)) {
      this.settled = true;
      return;
    }
    this.#lost = lost;
    this.#lostStores = new Set(lost.flatMap(({ storeId }) => storeId ?? []));
    const others = world.stores.filter((host) => host.presence === 'here' && !lost.includes(host));
    const enough = others.filter((host) => world.markOf(host) === undefined);
    // Too few for a whole set is no state to leave a cluster in.
    if (enough.length < world.replicationFactor && this.#fate === 'gone') this.#fate = 'replaced';
    world.say(`lost for good, a majority of some: ${lost.map(({ name }) => name).join()}`);
    for (const host of lost) {
      world.crashStore(host);
      host.presence = 'gone';
    }
    if (this.#fate === 'replaced') {
      for (const host of lost) {
        this.#awaited += 1;
        world.scheduler.after(random.between(0, 40_000), () => {
          this.#awaited -= 1;
          host.presence = 'here';
          world.wipe(host);
          world.startStore(host);
        });
      }
    }
    world.scheduler.after(random.between(500, 20_000), () => void this.#tend());
  }

  /** A recovery: it goes on from the copy that has most, and keeps what can be kept of the rest. */
  check(entry: ObservedEntry, before: ObservedConfiguration): void {
    const { observer } = this.#world;
    const { repositoryId: id, generation, after = generation - 1, updates } = entry;
    const kept = new Map(updates.map((update) => [update.ref, update]));
    this.#world.count('recoveries of a lost majority');
    for (const host of this.#left(before)) {
      const copy = presentProgress(host.disk, id);
      if (copy.generation === undefined || copy.generation <= after) continue;
      if (this.#world.isDamaged(host, id)) continue;
      this.#world.violate(`${host.name} has ${copy.generation}, and a recovery follows ${after}`);
    }
    const overruled = (observer.entries.get(id) ?? []).filter(
      (one) => one.generation > after && one.generation < generation,
    );
    const allowed = new Map(overruled.flatMap((one) => wantedOf(one)));
    this.#checkApplied(overruled[0], before);
    for (const one of overruled) {
      this.#world.count('pushes overruled by a recovery');
      const known = this.#left(before).some((host) => knowsUpdates(host, one));
      const holders = this.#left(before).filter(
        ({ storeId = '' }) => known && one.prepared.includes(storeId),
      );
      for (const [name, oid] of wantedOf(one)) {
        if (kept.get(name)?.newOid === oid) {
          this.#world.count('overruled pushes kept as refs');
          continue;
        }
        if (holders.some((host) => this.#holds(host, one, oid))) {
          this.#world.violate(`${name} could be kept of ${one.pushId}, and was not`);
        }
      }
    }
    for (const { ref, oldOid, newOid } of updates) {
      const known = allowed.get(ref) === newOid || this.#isUnacknowledged(ref, newOid, entry);
      if (oldOid !== zeroOid || !known) this.#world.violate(`a recovery made ${ref} at ${newOid}`);
    }
  }

  /** The first push that is overruled: nobody who is left could have applied it. */
  #checkApplied(entry: ObservedEntry | undefined, before: ObservedConfiguration): void {
    if (entry === undefined || this.#world.network.disturbed) return;
    const { repositoryId: id, generation, prepared, updates } = entry;
    const tips = updates.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
    for (const host of this.#left(before)) {
      const { disk, storeId = '', name, process, replica } = host;
      if (!prepared.includes(storeId) || replica === undefined || process?.paused === true)
        continue;
      if (disk.full || disk.failing || presentProgress(disk, id).generation !== generation - 1)
        continue;
      if (tips.some((oid) => !this.#holds(host, entry, oid))) continue;
      if (!knowsUpdates(host, entry)) continue;
      this.#world.violate(`${name} could have applied ${generation}, which a recovery overrules`);
    }
  }

  /** Whether somebody may be going on with what is left of this repository. */
  concerns(repositoryId: string): boolean {
    return this.#world.history.recovered.has(repositoryId);
  }

  /** Stores of a set that are not lost. */
  #left({ voters, learners, readers }: ObservedConfiguration): readonly StorageHost[] {
    return this.#world.stores.filter(
      ({ storeId = '', presence }) =>
        presence === 'here' &&
        !this.#lostStores.has(storeId) &&
        [voters, learners, readers].some((copies) => copies.has(storeId)),
    );
  }

  #holds(host: StorageHost, { repositoryId, pushId }: ObservedEntry, oid: Oid): boolean {
    if (this.#world.isDamaged(host, repositoryId)) return false;
    const { objects } = presentCopy(host.disk, repositoryId, pushId);
    return missingFrom(objects, [oid]).length === 0;
  }

  #isUnacknowledged(ref: string, oid: Oid, { repositoryId }: ObservedEntry): boolean {
    const match = /^refs\/quorate\/unacknowledged\/([^/]+)\/(.*)$/.exec(ref);
    if (match === null) return false;
    const { history } = this.#world;
    const [, pushId = '', rest = ''] = match;
    const push = history.operations.find((one) => one.kind === 'push' && one.pushId === pushId);
    if (push?.kind !== 'push' || push.repositoryId !== repositoryId) return false;
    const asked = (command: RefCommand): boolean =>
      command.ref === `refs/${rest}` && command.newOid === oid;
    // What is left of one that was committed, and applied here long ago, may be taken for one that never was.
    return push.commands.some(asked);
  }

  /** Somebody who knows what is lost, and looks after everything until it is well. */
  async #tend(): Promise<void> {
    const { observer, scheduler } = this.#world;
    let open = 0;
    for (const [id, { state }] of observer.configurations) {
      // One that is being made may come to be with just the stores that are lost.
      if (state === 'creating' || (state === 'active' && !(await this.#recover(id)))) open++;
    }
    if (open === 0) {
      await this.#finish();
      return;
    }
    scheduler.after(tendEveryMs, () => void this.#tend());
  }

  /** Whether nothing is left to do for this repository. */
  async #recover(id: string): Promise<boolean> {
    if (this.#isLostWhole(id)) {
      await this.#giveUp(id);
      return false;
    }
    const report = await this.#ask(({ cluster }) => this.#report(cluster, id, undefined));
    if (report === 'not found') return true;
    if (report === undefined) return false;
    const { copies, survivor, generation } = report;
    const voters = copies.filter(({ role }) => role === 'voter');
    const usable = voters.filter((copy) => copy.usable);
    const whole = copies.some((copy) => copy.usable && copy.generation === generation);
    if (whole && usable.length > voters.length / 2) return true;
    // What may come back is waited for, whatever the software takes it for.
    const waits = copies.some(
      ({ storeId, role, usable: has, alive }) =>
        !has && !this.#lostStores.has(storeId) && (role === 'voter' || !alive),
    );
    if (waits || survivor === undefined || report.refusal !== undefined) return false;
    this.#world.history.recovered.add(id);
    const accept = survivor.generation;
    const done = await this.#ask(({ cluster }) => this.#report(cluster, id, accept));
    if (typeof done === 'object') {
      this.#world.say(`${id} goes on from ${survivor.nodeId} at ${accept} of ${generation}`);
      this.#world.count('sets recovered after a lost majority');
    }
    return false;
  }

  /** Its making ended after the loss, with the stores that had been fast enough, and just these are gone. */
  #isLostWhole(id: string): boolean {
    const { observer, stores } = this.#world;
    const { voters, learners, readers } = observer.configurations.get(id) ?? {};
    const begun = observer.births.get(id)?.generation ?? 0;
    return !stores.some(
      ({ storeId = '', disk }) =>
        !this.#lostStores.has(storeId) &&
        [voters, learners, readers].some((copies) => copies?.has(storeId) === true) &&
        (voters?.has(storeId) === true || presentProgress(disk, id).recoverable >= begun),
    );
  }

  async #giveUp(id: string): Promise<void> {
    const { history, observer } = this.#world;
    const { generation } = observer.births.get(id) ?? { generation: 0 };
    if (observer.newest(id) > generation) this.#world.violate(`nothing is left of ${id}`);
    this.#world.say(`nothing is left of ${id}, which had no push yet: it is deleted`);
    history.deleted.add(id);
    await this.#ask(({ backend }) => backend.repositories.delete(id));
  }

  async #report(
    cluster: FrontEnd['cluster'],
    id: string,
    accept: number | undefined,
  ): Promise<LossReport> {
    const recovery = {
      keepUnacknowledged: this.#random.chance(0.3),
      actor: 'operator',
      signal: new AbortController().signal,
    };
    const report = await cluster.recover(id, { ...recovery, accept: undefined, gone: [] });
    const answers = new Set(report.copies.filter(({ usable }) => usable).map((one) => one.nodeId));
    const gone = report.copies
      .filter(({ storeId, nodeId }) => this.#lostStores.has(storeId) && !answers.has(nodeId))
      .map(({ nodeId }) => nodeId);
    return cluster.recover(id, { ...recovery, accept, gone: [...new Set(gone)] });
  }

  async #ask<T>(run: (frontEnd: FrontEnd) => Promise<T>): Promise<T | 'not found' | undefined> {
    const up = this.#world.frontEnds.filter(({ frontEnd }) => frontEnd !== undefined);
    if (up.length === 0) return undefined;
    const host = this.#random.pick(up);
    const answer = await askFrontEnd(host, run);
    if (answer === broken) return undefined;
    if (!(answer instanceof Error)) return answer;
    const { code, message } = asQuorateError(answer);
    this.#world.say(`not recovered: ${code}: ${message}`);
    return code === 'not-found' ? 'not found' : undefined;
  }

  async #finish(): Promise<void> {
    // Sets cannot be whole, and are not judged, before the machines are back that they are to be on.
    if (this.#awaited > 0) {
      this.#world.scheduler.after(tendEveryMs, () => void this.#finish());
      return;
    }
    this.#world.say('the operator has nothing more to recover');
    for (const host of this.#lost) {
      if (this.#fate === 'back') {
        host.presence = 'here';
        this.#world.count('lost stores that came back');
        this.#world.startStore(host);
      } else if (this.#fate === 'gone') {
        const marked = await this.#ask(async ({ cluster }) =>
          cluster.remove(host.name, { force: true }),
        );
        if (marked === undefined && this.#world.markOf(host) !== 'removed') {
          this.#world.scheduler.after(tendEveryMs, () => void this.#finish());
          return;
        }
      }
    }
    this.settled = true;
  }
}

/** Whether it has what an entry says only the digest of. */
function knowsUpdates({ disk }: StorageHost, entry: ObservedEntry): boolean {
  const { updatesDigest } = entry;
  return (
    updatesDigest === undefined || presentUpdates(disk, { ...entry, updatesDigest }) !== undefined
  );
}

/** Refs that are to keep what a push brought. */
function wantedOf({ generation, updates }: ObservedEntry): readonly (readonly [string, Oid])[] {
  return updates
    .filter(({ newOid }) => newOid !== zeroOid)
    .map(({ ref, newOid }) => [
      `refs/quorate/overruled/${generation}/${ref.slice('refs/'.length)}`,
      newOid,
    ]);
}

/** Stores of the same sets that are not lost with them. */
export function left(world: World, lost: readonly StorageHost[]): readonly StorageHost[] {
  const sets = [...world.observer.configurations.values()].filter(({ voters }) =>
    lost.some(({ storeId = '' }) => voters.has(storeId)),
  );
  return world.stores.filter(
    (host) => !lost.includes(host) && sets.some(({ voters }) => voters.has(host.storeId ?? '')),
  );
}

/** Stores whose loss takes the majority from some set, and leaves a copy of each; undefined when there are none. */
export function losable(world: World, random: SeededRandom): readonly StorageHost[] | undefined {
  if (world.replicationFactor < 2 || !world.mayLoseDisk) return undefined;
  const sets = [...world.observer.configurations.values()].filter(
    ({ state }) => state !== 'deleted',
  );
  const { voters } = sets.length === 0 ? { voters: new Map() } : random.pick(sets);
  const holders = world.stores.filter(
    ({ storeId, presence }) => presence === 'here' && voters.has(storeId ?? ''),
  );
  const needed = Math.ceil(voters.size / 2);
  const lost = random.shuffled(holders).slice(0, needed);
  if (lost.length < needed || lost.length === 0) return undefined;
  return leavesCopies(world, lost) ? lost : undefined;
}

/** Without these stores every set has a copy left to go on from. */
function leavesCopies({ observer, stores }: World, lost: readonly StorageHost[]): boolean {
  const stays = ({ state, voters }: ObservedConfiguration): boolean =>
    state === 'deleted' ||
    [...voters].some(
      ([storeId, declared]) =>
        declared !== 'stale' &&
        stores.some(
          (host) => host.storeId === storeId && host.presence === 'here' && !lost.includes(host),
        ),
    );
  return [...observer.configurations.values()].every(stays);
}
