import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { ObjectType, Oid } from '../contract/objects.js';
import { ConversationPool, type Dialogue } from './conversation-pool.js';
import type { GitRunner } from './git-runner.js';

export interface ObjectInfo {
  readonly type: ObjectType;
  readonly sizeBytes: number;
}

/**
 * Types and sizes of objects in promoted stores, from persistent `git cat-file --batch-check`, one for each repository
 * that was used lately. git looks for new packs before it says that an object is missing, so that what was promoted
 * before the call is found; what was pruned may be reported until the process ends (`release` it after pruning).
 * Errors: `unavailable`, `invalid-argument` (not an object id), `resource-exhausted`.
 */
export interface ObjectReader {
  /** In the order of `oids`; undefined for what is missing. */
  info(gitDir: string, oids: readonly Oid[]): Promise<readonly (ObjectInfo | undefined)[]>;
  /** For each of `oids` that is an annotated tag: what it finally points at, if that is there. */
  peel(gitDir: string, oids: readonly Oid[]): Promise<ReadonlyMap<Oid, Oid>>;
  /** Ends the process kept for a repository. */
  release(gitDir: string): Promise<void>;
  close(): Promise<void>;
}

export interface ObjectReaderOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  /** Persistent processes kept (default as `ConversationPool`), each for at most `idleMs` after its last use (default 30 s). */
  readonly maxOpen?: number;
  readonly idleMs?: number;
}

/** Questions in flight: their answers (some 60 KB) fit the socket's buffer, so that neither side waits for the other. */
const batchSize = 1000;

const objectTypes: Readonly<Record<string, ObjectType>> = {
  commit: 'commit',
  tree: 'tree',
  blob: 'blob',
  tag: 'tag',
};

export function createObjectReader(options: ObjectReaderOptions): ObjectReader {
  const pool = new ConversationPool({
    ...options,
    args: ['cat-file', '--batch-check=%(objectname) %(objecttype) %(objectsize)'],
  });

  async function ask<T>(
    gitDir: string,
    questions: readonly string[],
    parse: (answer: string) => T,
  ): Promise<T[]> {
    if (questions.length === 0) return [];
    return pool.exchange(gitDir, async (dialogue) => {
      const answers: T[] = [];
      for (let start = 0; start < questions.length; start += batchSize) {
        const batch = questions.slice(start, start + batchSize);
        await dialogue.write(`${batch.join('\n')}\n`);
        for (let left = batch.length; left > 0; left--) answers.push(parse(await answer(dialogue)));
      }
      return answers;
    });
  }

  async function info(
    gitDir: string,
    oids: readonly Oid[],
  ): Promise<readonly (ObjectInfo | undefined)[]> {
    oids.forEach(assertOid);
    return ask(gitDir, oids, (line) => parseInfo(line)?.info);
  }

  return {
    info,
    async peel(gitDir, oids) {
      const infos = await info(gitDir, oids);
      const tags = oids.filter((_, index) => infos[index]?.type === 'tag');
      const targets = await ask(
        gitDir,
        tags.map((oid) => `${oid}^{}`),
        (line) => parseInfo(line)?.oid,
      );
      const peeled = new Map<Oid, Oid>();
      tags.forEach((tag, index) => {
        const target = targets[index];
        if (target !== undefined) peeled.set(tag, target);
      });
      return peeled;
    },
    release: (gitDir) => pool.release(gitDir),
    close: () => pool.close(),
  };
}

async function answer(dialogue: Dialogue): Promise<string> {
  const line = await dialogue.readLine();
  if (line === undefined) throw new QuorateError('unavailable', 'git ended while it was asked');
  return line;
}

/** `oid type size`, or `question missing` (git-cat-file(1)). */
function parseInfo(line: string): { oid: Oid; info: ObjectInfo } | undefined {
  const [oid = '', typeName = '', size = ''] = line.split(' ');
  const type = objectTypes[typeName];
  return type === undefined ? undefined : { oid, info: { type, sizeBytes: Number(size) } };
}

function assertOid(oid: string): void {
  if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(oid)) {
    throw new QuorateError('invalid-argument', 'that is no object id');
  }
}
