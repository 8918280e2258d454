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
}

export class History {
  readonly operations: Operation[] = [];
  /** Repositories whose deletion was asked for: what happens to them afterwards is their own affair. */
  readonly deleted = new Set<string>();

  add<T extends Operation>(operation: T): T {
    this.operations.push(operation);
    return operation;
  }
}
