import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import type { HookEnd, HookProgram, HookRun } from '../contract/hook.js';
import type { GitRunner } from '../git/git-runner.js';
import { objectEnvironment, type ObjectSources } from '../git/object-environment.js';
import { isMissing } from '../git/repository-files.js';

/** Hooks as files of this store, by what is in them. The coordinator has them; what lies here is a copy. */
export class HookPrograms {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Path of the executable. Made whole or not at all, and never written to again: it may be running. */
  async pathOf({ digest, content }: HookProgram): Promise<string> {
    if (!/^[0-9a-f]{64}$/.test(digest)) {
      throw new QuorateError('invalid-argument', 'that is no digest of a hook');
    }
    const path = join(this.#directory, digest);
    const there = await access(path).then(
      () => true,
      (error: unknown) => {
        if (isMissing(error)) return false;
        throw error;
      },
    );
    if (there) return path;
    const bytes = await content();
    if (createHash('sha256').update(bytes).digest('hex') !== digest) {
      throw new QuorateError('data-corrupt', 'a hook in the coordinator is damaged');
    }
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const half = join(this.#directory, `half-${randomUUID()}`);
    try {
      await writeFile(half, bytes, { mode: 0o500, flush: true });
      await rename(half, path);
    } catch (error) {
      await rm(half, { force: true });
      throw error;
    }
    return path;
  }
}

/** Variable of a hook whose value no other run shares: by it are found the processes that hide from its group. */
const marker = 'QUORATE_HOOK_RUN';

/**
 * Runs a hook as git would, in the repository's directory, with the objects of the push in view. GIT_QUARANTINE_PATH
 * is set in every stage: with it no git changes a ref, and only the push log may.
 */
export async function runHookProgram(
  git: GitRunner,
  { path, runId, run }: { readonly path: string; readonly runId: string; readonly run: HookRun },
  sources: ObjectSources,
): Promise<HookEnd> {
  const interpreter = await interpreterOf(path);
  if (interpreter !== undefined && !(await isExecutable(interpreter))) {
    const said = `this hook cannot be started: its first line names ${interpreter}, which is not on this server, or is no program`;
    run.output(Buffer.from(`${said}\n`));
    return { how: 'exited', exitCode: notFoundStatus };
  }
  return git.program({
    file: path,
    args: run.args,
    cwd: sources.gitDir,
    env: {
      ...run.env,
      ...objectEnvironment(sources),
      [marker]: runId,
      GIT_QUARANTINE_PATH: sources.objectDirectory ?? join(sources.gitDir, 'objects'),
    },
    marker,
    stdin: run.stdin,
    limits: run.limits,
    output: run.output,
    signal: run.signal,
  });
}

/** What a shell ends with when a program that it is to start is not there. */
const notFoundStatus = 127;
/** The kernel looks at no more of a program's first line (execve(2), "Interpreter scripts"). */
const maxFirstLineBytes = 255;

/** The program that the first line of this one names; undefined when it names none by an absolute path. */
async function interpreterOf(path: string): Promise<string | undefined> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(maxFirstLineBytes));
    return /^#![ \t]*(\/[^ \t\n\0]*)/.exec(buffer.toString('utf8', 0, bytesRead))?.[1];
  } finally {
    await file.close();
  }
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
