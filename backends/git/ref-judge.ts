import { link, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import { ConversationPool, type Dialogue } from './conversation-pool.js';
import type { GitRunner } from './git-runner.js';
import { writeRefCommands } from './ref-commands.js';
import { dryRunConfig, type DryRun } from './ref-dry-run.js';
import { removeLocksOfKilled } from './ref-files.js';
import { isMissing } from './repository-files.js';

export interface RefJudgeOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly maxOpen?: number;
  readonly idleMs?: number;
}

/**
 * Dry runs without a process for each: persistent `git update-ref --stdin`, one for each repository, whose environment
 * names a further object directory. The packs of the push that is judged are linked into it for the time being, since
 * git looks for the objects that refs are to point to. One dry run at a time on a repository.
 */
export class RefJudge {
  readonly #pool: ConversationPool;
  readonly #made = new Set<string>();

  constructor(options: RefJudgeOptions) {
    this.#pool = new ConversationPool({
      ...options,
      args: ['update-ref', '--stdin', '-z'],
      config: dryRunConfig,
      // A push leaves its packs in the memory of the process that judged it.
      maxExchanges: 500,
    });
  }

  /**
   * True when git would take all updates of the runs, which are on one repository, together; false when it would not,
   * or could not be asked this way.
   */
  async pass(runs: readonly DryRun[]): Promise<boolean> {
    const [run] = runs;
    if (run?.judgingDirectory === undefined) return false;
    const { judgingDirectory, gitDir } = run;
    const updates = runs.flatMap((each) => each.updates);
    await this.#make(judgingDirectory);
    const linking = await Promise.allSettled(
      runs.map(({ objectDirectory }) => linkPacks(objectDirectory, judgingDirectory)),
    );
    const linked = linking.flatMap((end) => (end.status === 'fulfilled' ? end.value : []));
    try {
      for (const end of linking) if (end.status === 'rejected') throw end.reason;
      const commands = writeRefCommands(updates, 'abort');
      const verdict = await this.#pool.exchange(
        gitDir,
        (dialogue) => prepares(dialogue, commands),
        { GIT_ALTERNATE_OBJECT_DIRECTORIES: quoted(judgingDirectory) },
      );
      // Otherwise its locks would be in the way of every transaction to come.
      if (verdict === 'killed') {
        await removeLocksOfKilled(
          gitDir,
          updates.map(({ ref }) => ref),
        );
      }
      return verdict === 'prepared';
    } finally {
      await Promise.all(linked.map((path) => rm(path, { force: true })));
    }
  }

  release(gitDir: string): Promise<void> {
    return this.#pool.release(gitDir);
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  /** git ignores an object directory that is not there when it starts. */
  async #make(directory: string): Promise<void> {
    if (this.#made.has(directory)) return;
    await mkdir(join(directory, 'pack'), { recursive: true, mode: 0o700 });
    if (this.#made.size >= 10_000) this.#made.clear();
    this.#made.add(directory);
  }
}

async function linkPacks(from: string | undefined, to: string): Promise<readonly string[]> {
  if (from === undefined) return [];
  const names = await readdir(join(from, 'pack')).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
  const wanted = names.filter((name) => /\.(?:pack|idx)$/.test(name));
  return Promise.all(
    wanted.map(async (name) => {
      const path = join(to, 'pack', name);
      await link(join(from, 'pack', name), path).catch((error: unknown) => {
        // Left by a crash: the name is made of the content, so it is the same.
        if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      });
      return path;
    }),
  );
}

async function prepares(
  dialogue: Dialogue,
  commands: Buffer,
): Promise<'prepared' | 'refused' | 'killed'> {
  // git ends when it refuses, perhaps before it has read everything.
  await dialogue.write(commands).catch(() => undefined);
  for (const expected of ['start: ok', 'prepare: ok', 'abort: ok']) {
    if ((await dialogue.readLine()) === expected) continue;
    const { signal } = await dialogue.ended();
    return signal === null ? 'refused' : 'killed';
  }
  return 'prepared';
}

function quoted(path: string): string {
  return `"${path.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}
