import type { Refs } from './check-pushes.js';
import { zeroOid } from './push-journal.js';
import { annotatedTag, emptyCommit, emptyTree } from './raw-git.js';
import type { GitObject, RefMove } from './raw-git.js';
import type { Seeded } from './seeded.js';

/** What one push is to do. */
export interface PushPlan {
  readonly repository: string;
  readonly moves: readonly RefMove[];
  /** All that the new values need beyond the old ones. */
  readonly objects: readonly GitObject[];
  readonly atomic: boolean;
  /** Refs that go back to a commit without what they had. */
  readonly forced: ReadonlySet<string>;
}

export interface PlannerOptions {
  readonly client: string;
  readonly random: Seeded;
  /** The repository that all clients push to. */
  readonly repository: string;
  /** May race with others for `refs/heads/shared`. */
  readonly races: boolean;
  readonly maxNewRepositories: number;
}

const branchesPerClient = 5;

/** Thinks of pushes of one client: to refs of its own, to the branch that all race for, to new repositories. */
export class PushPlanner {
  readonly #options: PlannerOptions;
  readonly repositories: string[];
  #known = new Map<string, string>();
  readonly #unsure = new Set<string>();
  #count = 0;

  constructor(options: PlannerOptions) {
    this.#options = options;
    this.repositories = [options.repository];
  }

  /** What the refs are, from whoever looked when nobody pushed. */
  learn(refs: Refs): void {
    this.#unsure.clear();
    this.#known = new Map(
      [...refs].flatMap(([repository, values]) =>
        [...values].map(([ref, oid]) => [`${repository} ${ref}`, oid] as const),
      ),
    );
  }

  /** After a push: what the client now knows. */
  settle(plan: PushPlan, verdictOf: (ref: string) => string): void {
    for (const { ref, new: value } of plan.moves) {
      const name = `${plan.repository} ${ref}`;
      const verdict = verdictOf(ref);
      if (verdict === 'unknown') this.#unsure.add(name);
      if (verdict === 'acknowledged') this.#known.set(name, value);
    }
  }

  /** Somebody else was seen to move a ref. */
  see(repository: string, refs: ReadonlyMap<string, string>): void {
    for (const [ref, oid] of refs) this.#known.set(`${repository} ${ref}`, oid);
  }

  next(): PushPlan {
    const { random, races, maxNewRepositories } = this.#options;
    const dice = random.next();
    if (dice < 0.04 && this.repositories.length <= maxNewRepositories) return this.#newRepository();
    const repository = random.pick(this.repositories);
    if (dice < 0.25 && races) return this.#race();
    if (dice < 0.45) return this.#several(repository);
    if (dice < 0.55) return this.#remove(repository);
    if (dice < 0.65) return this.#one(repository, this.#tag(repository));
    return this.#one(repository, this.#branch(repository, random.chance(0.15)));
  }

  #newRepository(): PushPlan {
    const { client, random } = this.#options;
    this.#count += 1;
    const repository = `new/${client}-${this.#count}`;
    this.repositories.push(repository);
    const first = this.#branch(repository, false);
    return random.chance(0.5)
      ? this.#one(repository, first)
      : this.#all(repository, [first, this.#tag(repository)]);
  }

  #race(): PushPlan {
    const { repository } = this.#options;
    return this.#one(repository, this.#commitOn(repository, 'refs/heads/shared', false));
  }

  #several(repository: string): PushPlan {
    const { random } = this.#options;
    const steps = [this.#branch(repository, false), this.#branch(repository, random.chance(0.2))];
    const distinct = steps.filter(
      ({ move }, index) => steps.findIndex((other) => other.move.ref === move.ref) === index,
    );
    return this.#all(repository, [...distinct, this.#tag(repository)]);
  }

  #remove(repository: string): PushPlan {
    const { client, random } = this.#options;
    const mine = [...this.#known].filter(
      ([name, oid]) =>
        oid !== zeroOid &&
        !this.#unsure.has(name) &&
        (name.startsWith(`${repository} refs/heads/${client}/`) ||
          name.startsWith(`${repository} refs/tags/${client}-`)),
    );
    if (mine.length === 0) return this.#one(repository, this.#branch(repository, false));
    const [name, old] = random.pick(mine);
    const ref = name.slice(repository.length + 1);
    return this.#one(repository, { move: { ref, old, new: zeroOid }, objects: [], forced: false });
  }

  #tag(repository: string): Step {
    const { client } = this.#options;
    this.#count += 1;
    const commit = this.#commit([]);
    const ref = `refs/tags/${client}-${this.#count}`;
    const old = this.#known.get(`${repository} ${ref}`) ?? zeroOid;
    const tag = annotatedTag(`${client}-${this.#count}`, commit.oid);
    return { move: { ref, old, new: tag.oid }, objects: [commit, tag], forced: false };
  }

  /** A branch of this client's own whose value it is sure of. */
  #branch(repository: string, forced: boolean): Step {
    const { client, random } = this.#options;
    const number = random.between(1, branchesPerClient);
    const ref = `refs/heads/${client}/b${number}`;
    if (!this.#unsure.has(`${repository} ${ref}`)) return this.#commitOn(repository, ref, forced);
    this.#count += 1;
    return this.#commitOn(repository, `refs/heads/${client}/x${this.#count}`, false);
  }

  #commitOn(repository: string, ref: string, forced: boolean): Step {
    const old = this.#known.get(`${repository} ${ref}`) ?? zeroOid;
    const commit = this.#commit(old === zeroOid || forced ? [] : [old]);
    return { move: { ref, old, new: commit.oid }, objects: [commit], forced };
  }

  #commit(parents: readonly string[]): GitObject {
    this.#count += 1;
    return emptyCommit(`${this.#options.client} ${this.#count}`, parents);
  }

  #one(repository: string, step: Step): PushPlan {
    return { ...this.#all(repository, [step]), atomic: false };
  }

  #all(repository: string, steps: readonly Step[]): PushPlan {
    return {
      repository,
      moves: steps.map(({ move }) => move),
      objects: [emptyTree, ...steps.flatMap(({ objects }) => objects)],
      atomic: true,
      forced: new Set(steps.filter(({ forced }) => forced).map(({ move }) => move.ref)),
    };
  }
}

interface Step {
  readonly move: RefMove;
  readonly objects: readonly GitObject[];
  readonly forced: boolean;
}
