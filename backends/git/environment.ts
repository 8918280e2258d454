import { access, constants, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import { withinPushVariable } from '../contract/within-push.js';

/** Debian's default, for a server that was started without PATH. */
const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The only user configuration that git sees. A file, and not GIT_CONFIG_COUNT, since git drops that when it starts
 * another git on another repository (`git fetch /path`), and this is to hold there too. A repository's own
 * configuration still has the last word on everything but safe.directory. ssh sends the variable where it is set, which
 * is in hooks.
 */
const globalConfig = `[core]
\tsshCommand = ssh -o SendEnv=${withinPushVariable}
[safe]
\tdirectory = *
[gc]
\tauto = 0
[maintenance]
\tauto = false
`;

export interface BaseEnvironment {
  /** An empty directory that is no repository: where git runs unless it is told otherwise. */
  readonly emptyDirectory: string;
  /** Where git directories are that only have a HEAD. */
  readonly headsDirectory: string;
  readonly variables: Readonly<Record<string, string>>;
}

/** Prepares `directory` (exists, private) and returns the environment that every git gets. */
export async function createBaseEnvironment(directory: string): Promise<BaseEnvironment> {
  const emptyDirectory = join(directory, 'empty');
  const configFile = join(directory, 'gitconfig');
  const headsDirectory = join(directory, 'heads');
  await mkdir(emptyDirectory, { mode: 0o700 });
  await mkdir(headsDirectory, { mode: 0o700 });
  await writeFile(configFile, globalConfig, { mode: 0o600 });
  return {
    emptyDirectory,
    headsDirectory,
    variables: {
      PATH: process.env['PATH'] ?? defaultPath,
      LC_ALL: 'C',
      HOME: emptyDirectory,
      XDG_CONFIG_HOME: emptyDirectory,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: configFile,
      GIT_ATTR_NOSYSTEM: '1',
      GIT_TERMINAL_PROMPT: '0',
      // A repository above the temporary directory is not to be found from the empty one.
      GIT_CEILING_DIRECTORIES: directory,
    },
  };
}

/**
 * Makes a git directory with a HEAD that names no branch, and of which all else is what `gitDir`, absolute, has. Errors:
 * those of the file system; nothing is left then.
 */
export async function makeOwnHead(
  { headsDirectory }: Pick<BaseEnvironment, 'headsDirectory'>,
  gitDir: string,
): Promise<string> {
  const directory = await mkdtemp(join(headsDirectory, 'of-'));
  try {
    await writeFile(join(directory, 'HEAD'), 'ref: refs/quorate/none\n');
    await writeFile(join(directory, 'commondir'), `${gitDir}\n`);
    return directory;
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** `command.config` as git takes it from the environment: nothing in argv, no quoting. */
export function configVariables(config: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(config);
  if (entries.length === 0) return {};
  const variables: Record<string, string> = { GIT_CONFIG_COUNT: String(entries.length) };
  entries.forEach(([key, value], index) => {
    variables[`GIT_CONFIG_KEY_${index}`] = key;
    variables[`GIT_CONFIG_VALUE_${index}`] = value;
  });
  return variables;
}

/** Throws `invalid-argument` for what the kernel would cut short: a NUL in an argument or a variable. */
export function assertNoNul(strings: Iterable<string>): void {
  for (const text of strings) {
    if (text.includes('\0')) {
      throw new QuorateError('invalid-argument', 'an argument of git holds a NUL byte');
    }
  }
}

/** Full path of a program on `path`, or undefined. */
export async function findProgram(name: string, path: string): Promise<string | undefined> {
  for (const directory of path.split(delimiter)) {
    if (!isAbsolute(directory)) continue;
    const candidate = join(directory, name);
    const usable = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return candidate;
  }
  return undefined;
}

const commandNames = new Set(
  (
    'archive cat-file commit-graph config count-objects fetch for-each-ref fsck gc hash-object index-pack init ' +
    'ls-remote merge-base multi-pack-index pack-objects pack-refs prune prune-packed receive-pack repack rev-list ' +
    'rev-parse show-ref symbolic-ref unpack-objects update-ref update-server-info upload-archive upload-pack verify-pack'
  ).split(' '),
);

/** The git command in an argv, as a metric label: from a closed set, else `other`. */
export function commandLabel(args: readonly string[]): string {
  return args.find((arg) => commandNames.has(arg)) ?? 'other';
}
