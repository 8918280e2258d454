import type { Head, Oid, RefCommand } from '../../contract/objects.js';

/** What clients did and were told: all that the checker knows of the implementation's answers. Times are virtual. */
export type Operation = PushOperation | ReadOperation | HeadOperation;

interface Timed {
  readonly repositoryId: string;
  readonly startMs: number;
  /** Infinity: nobody ever heard. */
  endMs: number;
}

export interface PushOperation extends Timed {
  readonly kind: 'push';
  readonly pushId: string;
  readonly commands: readonly RefCommand[];
  readonly atomic: boolean;
  answer: PushAnswer;
}

export type PushAnswer =
  | {
      readonly status: 'reported';
      /** Refs that were reported as updated. */
      readonly ok: ReadonlySet<string>;
      readonly generation: number | undefined;
    }
  /** Promised to have changed nothing. */
  | { readonly status: 'failed'; readonly code: string; readonly message: string }
  /** The connection broke: it may have happened, or may still. */
  | { readonly status: 'unknown' };

export interface HeadOperation extends Timed {
  readonly kind: 'head';
  readonly branch: string;
  answer: 'done' | 'failed' | 'unknown';
}

export interface ReadOperation extends Timed {
  readonly kind: 'read';
  /** The oldest generation that it may show: at `strong` the newest when it began, and what was asked for in any case. */
  readonly oldest: number;
  readonly generation: number;
  readonly head: Head;
  readonly refs: ReadonlyMap<string, Oid>;
  /** Values of refs whose objects were not there. */
  readonly missing: readonly Oid[];
  /** Objects that are there, and that only another repository was ever given, which had the same name before. */
  readonly foreign: readonly Oid[];
}

/** What was asked by name. Who got no answer knows nothing, and is not noted. */
export type NameOperation = Readonly<{
  name: string;
  startMs: number;
  endMs: number;
}> &
  Readonly<
    | { kind: 'lookup'; found: string | undefined }
    | { kind: 'create'; made: string }
    /** By its id; the name is free of it from then on. */
    | { kind: 'delete'; repositoryId: string }
  >;

/** Asked for; whether there is one, the coordinator says. */
export interface ForkOperation {
  readonly sourceId: string;
  /** Nobody else's. */
  readonly name: string;
  readonly startMs: number;
  /** Of the refs of the source that it gets. */
  readonly visible: (ref: string) => boolean;
}

export class History {
  readonly operations: Operation[] = [];
  /** Repositories whose deletion was asked for: what happens to them afterwards is their own affair. */
  readonly deleted = new Set<string>();
  readonly named: NameOperation[] = [];
  readonly forks: ForkOperation[] = [];
  /** Repositories that somebody wanted to be gone on with from what is left of them. */
  readonly recovered = new Set<string>();

  add<T extends Operation>(operation: T): T {
    this.operations.push(operation);
    return operation;
  }
}
