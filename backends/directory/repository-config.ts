import { copyFile, constants, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import {
  isSettingKey,
  settingDefinitions,
  settingProblem,
  type SettingKey,
  type StoredSettings,
} from '../contract/settings.js';
import type { GitRunner } from '../git/git-runner.js';
import { syncDirectory } from '../git/repository-files.js';

/** A repository's own configuration, as git reads it. */
export interface RepositoryConfig {
  readonly objectFormat: ObjectFormat;
  /** Those of our settings that it sets. */
  readonly settings: StoredSettings;
  /** Whether it sets this key, in whatever case. */
  has(key: string): boolean;
}

interface Cached {
  /** Identity and times of the file that was read. */
  readonly stamp: string;
  readonly config: RepositoryConfig;
}

/** Configurations kept in memory: some 2 KB each. */
const maxCached = 10_000;

const keysInLowerCase = new Map(
  Object.keys(settingDefinitions)
    .filter(isSettingKey)
    .map((key) => [key.toLowerCase(), key] as const),
);

/** Who sets one of these would believe in a limit, or in copies, that nothing here provides. */
const withoutEffect: ReadonlySet<SettingKey> = new Set<SettingKey>([
  'receive.maxObjectSize',
  'receive.maxRefs',
  'replication.consistency',
  'replication.readConsistency',
]);

/** Reads and changes the configuration of repositories. What it remembers, a stat of the file confirms each time. */
export class RepositoryConfigs {
  readonly #git: GitRunner;
  readonly #cache = new Map<string, Cached>();

  constructor(git: GitRunner) {
    this.#git = git;
  }

  /** Errors: `not-found` (no configuration file), `data-corrupt` (git cannot read it). */
  async read(gitDir: string): Promise<RepositoryConfig> {
    const stamp = await stampOf(gitDir);
    const cached = this.#cache.get(gitDir);
    if (cached?.stamp === stamp) return cached.config;
    const { exitCode, stdout, stderr } = await this.#git.run({
      args: ['config', '--list', '--null'],
      env: { GIT_DIR: gitDir },
    });
    if (exitCode !== 0) {
      throw new QuorateError('data-corrupt', "the repository's configuration cannot be read", {
        details: { stderr },
      });
    }
    const values = parseListing(stdout.toString('utf8'));
    const config = configOf(values);
    // Read before the listing: a change in between shows as another stamp next time.
    this.#cache.delete(gitDir);
    if (!dependsOnOtherFiles(values)) this.#cache.set(gitDir, { stamp, config });
    if (this.#cache.size > maxCached) {
      for (const oldest of this.#cache.keys()) {
        this.#cache.delete(oldest);
        break;
      }
    }
    return config;
  }

  /**
   * Sets or unsets settings, all or none, under git's own lock. `commit` is asked when all is written but in force:
   * where it answers false, or rejects, nothing is changed. Answers what it said. Errors: `invalid-argument`,
   * `failed-precondition` (it would have no effect), `aborted` (locked).
   */
  async write(
    gitDir: string,
    changes: Readonly<Record<string, string | null>>,
    commit: () => Promise<boolean> = () => Promise.resolve(true),
  ): Promise<boolean> {
    const entries = Object.entries(changes).map(([key, value]) => checked(key, value));
    if (entries.length === 0) return commit();
    const file = join(gitDir, 'config');
    const lock = `${file}.lock`;
    try {
      // git takes this name with O_EXCL and renames it into place; so do we.
      await copyFile(file, lock, constants.COPYFILE_EXCL);
    } catch (cause) {
      throw new QuorateError(
        'aborted',
        "somebody else is changing the repository's configuration; if that goes on and no git runs there, a git that was killed has left config.lock in it: remove that file",
        { cause },
      );
    }
    try {
      for (const [key, values] of entries) await this.#setIn(lock, key, values);
      await syncDirectory(lock); // A file, here: it opens and syncs either.
      if (!(await commit())) {
        await rm(lock, { force: true });
        return false;
      }
      await rename(lock, file);
    } catch (error) {
      await rm(lock, { force: true });
      throw error;
    }
    await syncDirectory(dirname(file));
    return true;
  }

  async #setIn(file: string, key: SettingKey, values: readonly string[]): Promise<void> {
    const run = async (args: readonly string[], allowed: readonly number[]): Promise<void> => {
      const { exitCode, stderr } = await this.#git.run({
        args: ['config', '--file', file, ...args],
      });
      if (exitCode !== null && allowed.includes(exitCode)) return;
      throw new QuorateError('storage-failure', `the setting ${key} could not be written`, {
        details: { stderr },
      });
    };
    // 5: it was not set (git-config(1)).
    await run(['--unset-all', '--', key], [0, 5]);
    for (const value of values) await run(['--add', '--', key, value], [0]);
  }
}

function checked(key: string, value: string | null): readonly [SettingKey, readonly string[]] {
  if (!isSettingKey(key)) throw new QuorateError('invalid-argument', `there is no setting ${key}`);
  if (value === null) return [key, []];
  const problem = settingProblem(key, value);
  if (problem !== undefined) throw new QuorateError('invalid-argument', `${key} ${problem}`);
  if (withoutEffect.has(key)) {
    throw new QuorateError(
      'failed-precondition',
      `${key} would have no effect: on the directory backend git receives, and has no such setting`,
    );
  }
  return [
    key,
    isList(key)
      ? value
          .split(',')
          .map((part) => part.trim())
          .filter(Boolean)
      : [value],
  ];
}

/** git's own form of these is one line for each entry; ours is a comma between them. */
function isList(key: SettingKey): boolean {
  return settingDefinitions[key].kind === 'refs';
}

async function stampOf(gitDir: string): Promise<string> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(join(gitDir, 'config'), { bigint: true });
    return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
  } catch (cause) {
    throw new QuorateError('not-found', 'the repository is gone', { cause });
  }
}

/** `key LF value NUL` for each entry; a key without a value means true. */
function parseListing(text: string): ReadonlyMap<string, readonly string[]> {
  const values = new Map<string, string[]>();
  for (const entry of text.split('\0')) {
    if (entry === '') continue;
    const end = entry.indexOf('\n');
    const key = end < 0 ? entry : entry.slice(0, end);
    const value = end < 0 ? 'true' : entry.slice(end + 1);
    values.set(key, [...(values.get(key) ?? []), value]);
  }
  return values;
}

function configOf(values: ReadonlyMap<string, readonly string[]>): RepositoryConfig {
  const settings: Partial<Record<SettingKey, string>> = {};
  for (const [name, entries] of values) {
    const key = keysInLowerCase.get(name);
    if (key === undefined) continue;
    const value = isList(key) ? entries.join(',') : (entries.at(-1) ?? '');
    // git has the last word on a value that we do not understand; the default is shown meanwhile.
    if (settingProblem(key, value) === undefined) settings[key] = value;
  }
  const format = values.get('extensions.objectformat')?.at(-1)?.toLowerCase();
  return {
    objectFormat: format === 'sha256' ? 'sha256' : 'sha1',
    settings,
    has: (key) => values.has(key.toLowerCase()),
  };
}

/** One stat does not confirm what other files say. */
function dependsOnOtherFiles(values: ReadonlyMap<string, readonly string[]>): boolean {
  for (const key of values.keys()) {
    if (/^include(?:if)?\.|^extensions\.worktreeconfig$/.test(key)) return true;
  }
  return false;
}
