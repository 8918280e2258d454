import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import type { Dialogue } from './conversation-pool.js';
import { takeFileSteps, type FileStep, type TakeFileSteps } from './file-steps.js';
import type { GitRunner } from './git-runner.js';
import { writeDryRun } from './ref-commands.js';
import { RefConversations } from './ref-conversations.js';
import { dryRunConfig, type DryRun } from './ref-dry-run.js';
import { removeLocksOfKilled } from './ref-files.js';
import { isMissing } from './repository-files.js';

export interface RefJudgeOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly files?: TakeFileSteps;
  readonly maxOpen?: number;
  readonly idleMs?: number;
}

/**
 * Dry runs without a process for each: persistent `git update-ref --stdin`, one for each repository, whose environment
 * names a further object directory. The packs of the push that is judged are linked into it for the time being, since
 * git looks for the objects that refs are to point to. One dry run at a time on a repository.
 */
export class RefJudge {
  readonly #conversations: RefConversations;
  readonly #take: TakeFileSteps;
  /** Repositories whose judging directory is there. */
  readonly #made = new Set<string>();
  /** By judging directory: links that are on their way out. */
  readonly #unlinking = new Map<string, Promise<void>>();

  constructor(options: RefJudgeOptions) {
    this.#take = options.files ?? takeFileSteps;
    this.#conversations = new RefConversations({
      ...options,
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
    await this.#make(gitDir, judgingDirectory);
    // The same pack may be judged again.
    await this.#unlinking.get(judgingDirectory);
    const links = (await Promise.all(runs.map((each) => linksOf(each, judgingDirectory)))).flat();
    try {
      await this.#link(gitDir, links);
      const commands = writeDryRun(updates);
      const verdict = await this.#conversations.exchange(gitDir, updates, {
        talk: (dialogue) => prepares(dialogue, commands),
        env: { GIT_ALTERNATE_OBJECT_DIRECTORIES: quoted(judgingDirectory) },
      });
      // Otherwise its locks would be in the way of every transaction to come.
      if (verdict === 'killed') {
        await removeLocksOfKilled(
          gitDir,
          updates.map(({ ref }) => ref),
        );
      }
      return verdict === 'prepared';
    } finally {
      if (links.length > 0) this.#unlink(judgingDirectory, links);
    }
  }

  /** What comes to be at that path later is another repository, or another copy of it. */
  async release(gitDir: string): Promise<void> {
    this.#made.delete(gitDir);
    await Promise.all(this.#unlinking.values());
    await this.#conversations.release(gitDir);
  }

  async close(): Promise<void> {
    await Promise.all(this.#unlinking.values());
    await this.#conversations.close();
  }

  /** While the verdict is on its way. What stays costs room until the next start. */
  #unlink(judgingDirectory: string, links: readonly Link[]): void {
    const steps = links.map(({ to }): FileStep => ({ do: 'unlink', path: to }));
    const unlinking = this.#take(steps)
      .catch(() => undefined)
      .finally(() => this.#unlinking.delete(judgingDirectory));
    this.#unlinking.set(judgingDirectory, unlinking);
  }

  /** git ignores an object directory that is not there when it starts. */
  async #make(gitDir: string, directory: string): Promise<void> {
    if (this.#made.has(gitDir)) return;
    await mkdir(join(directory, 'pack'), { recursive: true, mode: 0o700 });
    if (this.#made.size >= 10_000) this.#made.clear();
    this.#made.add(gitDir);
  }

  async #link(gitDir: string, links: readonly Link[]): Promise<void> {
    if (links.length === 0) return;
    try {
      await this.#take(links);
    } catch (error) {
      // Whatever became of the directory: the next push makes it anew.
      this.#made.delete(gitDir);
      throw error;
    }
  }
}

type Link = Extract<FileStep, { do: 'link' }>;

async function linksOf(
  { objectDirectory, packFiles }: DryRun,
  to: string,
): Promise<readonly Link[]> {
  if (objectDirectory === undefined) return [];
  const from = join(objectDirectory, 'pack');
  const names = packFiles ?? (await packFilesIn(from));
  // One that a crash left is the same: the name is made of the content.
  return names.map((name) => ({ do: 'link', from: join(from, name), to: join(to, 'pack', name) }));
}

async function packFilesIn(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
  return names.filter((name) => /\.(?:pack|idx)$/.test(name));
}

async function prepares(
  dialogue: Dialogue,
  commands: string,
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
