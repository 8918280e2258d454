import type { Backend, PushResult } from '../../contract/backend.js';
import { asQuorateError } from '../../contract/errors.js';
import type { Oid } from '../../contract/objects.js';
import type { Repository } from '../../contract/repository.js';
import { openEmbeddedCoordinator } from '../../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../../coordination/process-lease.js';
import { createLocalBackend } from '../../local/local-backend.js';
import { pipelineOf } from './front-end-host.js';
import { countingLogger } from './happenings.js';
import { encodePack, makeObject, type ModelObject, zeroOid } from './pack-model.js';
import { Scheduler } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import { type PowerCut, SimulatedDisk } from './simulated-disk.js';
import { mount, unmountAll } from './simulated-files.js';
import { SimulatedGit } from './simulated-git.js';
import { SimulatedIndexer } from './simulated-indexer.js';
import { type CrashPoint, SimulatedProcess } from './simulated-process.js';

const points: readonly CrashPoint[] = ['fsync', 'fsync', 'rename', 'disk'];
const cuts: readonly (PowerCut | undefined)[] = ['everything', 'everything', 'any part', undefined];
const maxSteps = 200_000;
/** Lives of the process, each ended by a crash but the last. */
const lives = 5;

/**
 * One machine with everything in one process, on the embedded coordinator: what was acknowledged is there after every
 * power cut, and what was refused is not.
 */
export class OneMachine {
  readonly scheduler = new Scheduler();
  readonly violations: string[] = [];
  readonly happened = new Map<string, number>();
  acknowledged = 0;
  readonly logger = countingLogger(() => undefined, undefined);
  readonly #random: SeededRandom;
  readonly #log: ((line: string) => void) | undefined;
  readonly #disk: SimulatedDisk;
  #process: SimulatedProcess | undefined;
  #backend: Backend | undefined;
  #boots = 0;
  /** Of each ref, what it may be now: the last value that is certain, and those of pushes without an answer. */
  readonly #possible = new Map<string, readonly Oid[]>();
  #newest = 0;
  /** The log takes no updates: they stay with the store. */
  readonly #isLarge: boolean;
  /** Crashes at some step. */
  #armed = false;

  constructor(seed: number, log: ((line: string) => void) | undefined) {
    unmountAll();
    this.#random = new SeededRandom(`one machine ${seed}`);
    this.#log = log;
    this.#disk = new SimulatedDisk(() => 1_700_000_000_000 + this.scheduler.nowMs);
    this.#isLarge = new SeededRandom(`large one machine ${seed}`).chance(0.2);
    if (this.#isLarge) this.#count('one machine that keeps the updates of pushes');
  }

  /** Run it once. */
  async run(): Promise<void> {
    await this.#live();
    this.#process?.die();
  }

  async #live(): Promise<void> {
    this.#start();
    const repository = await this.#settled(this.#create());
    if (repository === undefined) return this.#violate('no repository could be made');
    for (let life = 1; life <= lives; life++) {
      this.#armed = life < lives;
      const clients = ['a', 'b', 'c'].map((name) => this.#work(repository, `refs/heads/${name}`));
      await this.#settled(Promise.all(clients));
      if (life < lives) this.#crash();
      else this.#process?.untrap();
    }
    const last = this.#work(repository, 'refs/heads/last');
    if ((await this.#settled(last)) === undefined) this.#violate('it does not answer any more');
    if (!this.#possible.has('refs/heads/last')) this.#violate('it takes no push any more');
  }

  #start(): void {
    if (this.#process?.alive === true) return;
    const boot = ++this.#boots;
    const process = new SimulatedProcess({
      name: 'machine',
      boot,
      scheduler: this.scheduler,
      random: this.#random.fork(`process ${boot}`),
      skewMs: 0,
      rate: 1,
      log: this.#log,
      happened: () => undefined,
    });
    this.#process = process;
    // Some of them before it has started.
    const count = 1 + this.#random.below(this.#random.pick([20, 150]));
    if (this.#armed) process.trap(this.#random.pick(points), count, () => this.#crash());
    const root = `machine.${boot}`;
    mount(root, { disk: this.#disk, process });
    void this.#open(process, root);
  }

  async #open(process: SimulatedProcess, root: string): Promise<void> {
    try {
      const { clock, random, logger, meter } = process;
      const directory = `${root}/coordinator`;
      const coordinator = await openEmbeddedCoordinator({ directory, clock, logger });
      const backend = await createLocalBackend({
        dataDirectory: root,
        coordinator,
        lease: createProcessLease({ coordinator, clock, logger }),
        git: new SimulatedGit(process),
        indexer: new SimulatedIndexer(process),
        pipeline: pipelineOf(process),
        clock,
        random,
        logger,
        meter,
        options: {
          nodeId: 'machine',
          lockTimeoutMs: 20_000,
          maintenance: { enabled: true, pruneGraceMs: 2_000 },
          scrubIntervalMs: 5_000,
        },
        maxInlineUpdatesBytes: this.#isLarge ? 100 : undefined,
      });
      await backend.start();
      if (process.alive) this.#backend = backend;
    } catch (error) {
      if (!process.alive) return;
      const { code, message } = asQuorateError(error);
      this.#violate(`it does not start: ${code}: ${message}`);
    }
  }

  #crash(): void {
    if (this.#process?.alive !== true) return;
    const cut = this.#random.pick(cuts);
    this.#say(`the machine crashes${cut === undefined ? '' : `, losing ${cut}`}`);
    this.#count(cut === undefined ? 'one machine killed' : 'one machine without power');
    this.#process?.die();
    this.#backend = undefined;
    if (cut !== undefined) this.#disk.cutPower(this.#random, cut);
    this.scheduler.after(50, () => this.#start());
  }

  async #create(): Promise<Repository> {
    return (await this.#up()).repositories.create({
      name: 'app',
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
  }

  async #up(): Promise<Backend> {
    while (this.#backend === undefined) await this.#pause(50);
    return this.#backend;
  }

  /** One client with a ref of its own, until the process dies. */
  async #work(repository: Repository, ref: string): Promise<true> {
    const backend = await this.#up();
    const { alive, died } = deathOf(this.#process);
    for (let i = 0; i < 4 && alive(); i++) {
      const oldOid = await Promise.race([this.#read(backend, repository, ref), died]);
      if (oldOid === undefined) return true;
      const parents = oldOid === zeroOid ? [] : [oldOid];
      const object = makeObject('commit', parents, `${ref} ${this.#random.hex(8)}`);
      const before = this.#possible.get(ref) ?? [zeroOid];
      this.#possible.set(ref, [...before, object.oid]);
      const command = { ref, oldOid, newOid: object.oid };
      const answer = await Promise.race([push(backend, repository, command, object), died]);
      if (answer === undefined) return true;
      if (answer === 'unknown') continue;
      if (answer === 'refused') this.#possible.set(ref, before);
      else {
        this.acknowledged++;
        this.#newest = Math.max(this.#newest, answer);
        this.#possible.set(ref, [object.oid]);
      }
      await Promise.race([this.#pause(this.#random.between(0, 100)), died]);
    }
    return true;
  }

  /** The value of the ref, which has to be one that it may have; from then on it is certain. */
  async #read(backend: Backend, repository: Repository, ref: string): Promise<Oid> {
    const session = await backend.read(repository, new AbortController().signal);
    const { snapshot } = session;
    const oid = snapshot.find(ref)?.oid ?? zeroOid;
    const sizes = oid === zeroOid ? [0] : await session.objectSizes([oid]);
    session.release();
    const possible = this.#possible.get(ref) ?? [zeroOid];
    if (!possible.includes(oid)) {
      this.#violate(`${ref} is at ${oid}, and can only be at ${possible.join(' or ')}`);
    }
    if (sizes.includes(undefined)) this.#violate(`${ref} is at ${oid}, which is missing`);
    if (snapshot.generation < this.#newest) {
      this.#violate(`generation ${snapshot.generation} is shown after ${this.#newest}`);
    }
    this.#possible.set(ref, [oid]);
    return oid;
  }

  async #settled<T>(promise: Promise<T>): Promise<T | undefined> {
    let outcome: { readonly value: T } | undefined;
    let failed = false;
    promise.then(
      (value) => (outcome = { value }),
      (error: unknown) => {
        failed = true;
        const { code, message } = asQuorateError(error);
        this.#violate(`a client got ${code}: ${message}`);
      },
    );
    const endMs = this.scheduler.nowMs + 120_000;
    const over = (): boolean =>
      outcome !== undefined ||
      failed ||
      this.scheduler.nowMs >= endMs ||
      this.violations.length > 0;
    await this.scheduler.run(over, maxSteps);
    return outcome?.value;
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.scheduler.after(ms, resolve));
  }

  #count(what: string): void {
    this.happened.set(what, (this.happened.get(what) ?? 0) + 1);
  }

  #violate(text: string): void {
    this.#say(`VIOLATION ${text}`);
    this.violations.push(text);
  }

  #say(text: string): void {
    this.#log?.(`${this.scheduler.nowMs.toFixed(3).padStart(11)} ${text}`);
  }
}

function deathOf(process: SimulatedProcess | undefined): {
  readonly alive: () => boolean;
  readonly died: Promise<undefined>;
} {
  const died = new Promise<undefined>((resolve) => process?.onDeath(() => resolve(undefined)));
  return { alive: () => process?.alive === true, died };
}

/** The generation that was acknowledged, or that nothing changed, or that nobody knows. */
async function push(
  backend: Backend,
  repository: Repository,
  command: { readonly ref: string; readonly oldOid: Oid; readonly newOid: Oid },
  object: ModelObject,
): Promise<number | 'refused' | 'unknown'> {
  try {
    const { refs, generation }: PushResult = await backend.push(repository, {
      pushId: `push-${object.oid.slice(0, 12)}`,
      actor: 'someone',
      commands: [command],
      refused: new Map(),
      atomic: false,
      pushOptions: [],
      pack: whole(encodePack([object])),
      shallow: [],
      progress: () => undefined,
      quiet: true,
      signal: new AbortController().signal,
    });
    return refs[0]?.status === 'ok' && generation !== undefined ? generation : 'refused';
  } catch (error) {
    return asQuorateError(error).code === 'outcome-unknown' ? 'unknown' : 'refused';
  }
}

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
