import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextStep, type SetView, type Step, type StoreView } from '../reconcile.js';

export const limits = {
  replicationFactor: 3,
  downAfterMs: 1_000,
  repairAfterMs: 10_000,
  maxLog: 100,
};
export const head = { generation: 7, digest: 'd' };
export const sound: StoreView = { alive: true, awayMs: 0, leaving: false, state: head };
export const away = (awayMs: number): StoreView => ({ alive: false, awayMs, leaving: false });
export const behind: StoreView = { ...sound, state: { generation: 3, digest: 'c' } };
export const frozen: StoreView = { ...sound, state: { ...head, frozen: 'refs' } };

/** Filled a moment ago, and pushes have come meanwhile. */
export const filled: StoreView = { ...behind, filled: true };

/** Its disk takes nothing: what was tried just now failed, as it has for so long. */
export const unfilled = (forMs: number): StoreView => ({ ...behind, unfilledMs: forMs });

export const missing: StoreView = { alive: true, awayMs: 0, leaving: false, missing: true };
export const damaged: StoreView = { ...sound, damaged: true };
export const ahead: StoreView = {
  ...frozen,
  state: { ...head, generation: 8, frozen: 'an old copy' },
};

export interface Scene {
  readonly desc: string;
  /** Store id -> view; what begins with `l` is a learner, with `r` a reader. */
  readonly stores: Readonly<Record<string, StoreView>>;
  readonly declared?: Readonly<Record<string, 'down' | 'stale'>>;
  /** Default: what `behind` lacks. */
  readonly logLength?: number;
  readonly headGeneration?: number;
  readonly wantedReaders?: number;
  readonly nobodyToAdd?: true;
  readonly step: Step | undefined;
}

export const three = { a: sound, b: sound, c: sound };

/** A test of the next step for each. */
export function testScenes(scenes: readonly Scene[]): void {
  for (const scene of scenes) {
    const { desc, stores, declared = {}, logLength = 4, wantedReaders = 0, step } = scene;
    const nobodyToAdd = scene.nobodyToAdd === true;
    test(desc, () => {
      const named = Object.keys(stores).map((storeId, joinedEpoch) => {
        const state = declared[storeId];
        const voter = { nodeId: storeId, storeId, joinedEpoch };
        return state === undefined ? voter : { ...voter, state };
      });
      const { headGeneration: generation = head.generation } = scene;
      const view: SetView = {
        record: {
          voters: named.filter(({ storeId }) => !/^[lr]/.test(storeId)),
          learners: named.filter(({ storeId }) => storeId.startsWith('l')),
          readers: named.filter(({ storeId }) => storeId.startsWith('r')),
        },
        wantedReaders,
        head: { ...head, generation },
        stores: new Map(Object.entries(stores)),
        logLength,
        nobodyToAdd,
      };
      assert.deepEqual(nextStep(view, limits), step);
    });
  }
}
