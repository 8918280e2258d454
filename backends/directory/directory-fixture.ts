/** A directory backend on temporary storage, for this folder's tests. */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Backend } from '../contract/backend.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Meter } from '../contract/environment.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { BackendHarness } from '../conformance/backend-suite.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { GitCommand, GitRunner } from '../git/git-runner.js';
import { createGitRunner } from '../git/runner.js';
import { permissivePipeline } from '../local/testing/local-fixture.js';
import { createDirectoryBackend } from './directory-backend.js';

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    delay(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }).catch(
      () => {},
    ),
};
const meter: Meter = { count: () => {}, observe: () => {}, gauge: () => {} };

export interface DirectoryFixture extends BackendHarness {
  readonly root: string;
  readonly coordinator: Coordinator;
}

export interface DirectoryScene {
  readonly pipeline?: PushPipeline;
  /** What happens around a git that the backend runs. */
  readonly aroundGit?: <T>(command: GitCommand, run: () => Promise<T>) => Promise<T>;
  /** As the backend sees it. */
  readonly coordinator?: (coordinator: Coordinator) => Coordinator;
}

export async function startDirectory(scene: DirectoryScene = {}): Promise<DirectoryFixture> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-directory-'));
  const root = join(directory, 'root');
  await mkdir(root);
  const git = await createGitRunner({ logger: silentLogger, meter });
  const { aroundGit = (_command, run) => run() } = scene;
  const watchedGit: GitRunner = {
    version: git.version,
    conversations: git.conversations,
    running: 0,
    run: (command) => aroundGit(command, () => git.run(command)),
    stream: (command) => aroundGit(command, () => git.stream(command)),
    converse: (command) => git.converse(command),
    program: (command) => git.program(command),
    close: () => git.close(),
  };
  const coordinator = await openEmbeddedCoordinator({
    directory: join(directory, 'coordinator'),
    clock,
    logger: silentLogger,
  });
  const open = async (): Promise<Backend> => {
    const backend = createDirectoryBackend({
      pipeline: scene.pipeline ?? permissivePipeline,
      root,
      coordinator: scene.coordinator?.(coordinator) ?? coordinator,
      git: watchedGit,
      clock,
      random: { bytes: (length) => randomBytes(length) },
      logger: silentLogger,
      meter,
    });
    await backend.start();
    return backend;
  };
  const backend = await open();
  let current = backend;
  return {
    root,
    coordinator,
    backend,
    reopen: async () => {
      await current.close(5_000);
      current = await open();
      return current;
    },
    dispose: async () => {
      await current.close(5_000);
      await coordinator.close();
      await git.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
