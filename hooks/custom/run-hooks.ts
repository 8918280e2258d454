import type { Logger, Meter } from '../../backends/contract/environment.js';
import { asQuorateError } from '../../backends/contract/errors.js';
import type { HookEnd, HookLimits, HookStage, RunHook } from '../../backends/contract/hook.js';
import type { RefCommand } from '../../backends/contract/objects.js';
import {
  withinPushHeader,
  withinPushMark,
  withinPushVariable,
} from '../../backends/contract/within-push.js';
import type { Hook, HookScope, HookStore } from './hook-store.js';

export interface HookDependencies {
  readonly hooks: HookStore;
  readonly hookOptions: {
    /** `hooks.enabled`: without it none runs. */
    readonly enabled: boolean;
    readonly limits: HookLimits;
  };
  readonly logger: Logger;
  readonly meter: Meter;
}

/** One call of a stage: what all of its hooks are told. */
export interface HookCall {
  readonly stage: HookStage;
  readonly repositoryId: string;
  /** Empty when it is not known any more. */
  readonly repositoryName: string;
  readonly pushId: string;
  readonly user: string;
  readonly pushOptions: readonly string[];
  readonly args: readonly string[];
  readonly updates: readonly RefCommand[];
  readonly runHook: RunHook;
  readonly output: (bytes: Uint8Array) => void;
  readonly signal: AbortSignal;
}

/** A hook that is set, and for what. */
export interface SetHook {
  readonly scope: HookScope;
  readonly hook: Hook;
}

/** The hooks of a stage as they are now, the server's first. */
export async function hooksOf(
  { hooks, hookOptions }: Pick<HookDependencies, 'hooks' | 'hookOptions'>,
  repositoryId: string,
  stage: HookStage,
): Promise<readonly SetHook[]> {
  if (!hookOptions.enabled) return [];
  const scopes: readonly HookScope[] = ['server', { repositoryId }];
  const found = await Promise.all(
    scopes.map(async (scope) => ({ scope, hook: await hooks.get(scope, stage) })),
  );
  return found.flatMap(({ scope, hook }) => (hook === undefined ? [] : [{ scope, hook }]));
}

/**
 * Runs the hooks of a stage until one refuses. Returns why, or undefined when all ended with 0. Throws what is the
 * server's trouble, and what comes of the caller's giving up.
 */
export async function runHooks(
  dependencies: HookDependencies,
  call: HookCall,
  found: readonly SetHook[],
): Promise<string | undefined> {
  for (const set of found) {
    const refusal = await runHook(dependencies, call, set);
    // After the commit nothing is refused any more: how one hook ends is no matter to the other.
    if (refusal !== undefined && call.stage !== 'post-receive') return refusal;
  }
  return undefined;
}

async function runHook(
  dependencies: HookDependencies,
  call: HookCall,
  { scope, hook }: SetHook,
): Promise<string | undefined> {
  const { hooks, hookOptions, logger, meter } = dependencies;
  const fields = {
    component: 'hook',
    stage: call.stage,
    scope: scope === 'server' ? 'server' : 'repository',
    version: hook.version,
    repo: call.repositoryId,
    push_id: call.pushId,
  };
  const startedMs = performance.now();
  let end: HookEnd;
  try {
    end = await call.runHook({
      program: { digest: hook.digest, content: () => hooks.content(scope, call.stage) },
      args: call.args,
      stdin: call.stage === 'update' ? new Uint8Array() : stdinOf(call.updates),
      env: environmentOf(call),
      limits: hookOptions.limits,
      output: call.output,
      signal: call.signal,
    });
  } catch (error) {
    meter.count('hook_runs', { stage: call.stage, outcome: 'failed' });
    logger.error({ ...fields, err: error }, 'a hook could not be run');
    throw asQuorateError(error);
  }
  meter.observe('hook_seconds', (performance.now() - startedMs) / 1000, { stage: call.stage });
  const refusal = refusalOf(call.stage, end, hookOptions.limits);
  const outcome = end.how === 'exited' ? (refusal === undefined ? 'ok' : 'declined') : end.how;
  meter.count('hook_runs', { stage: call.stage, outcome });
  logger[refusal === undefined ? 'info' : 'warn']({ ...fields, ...end }, 'hook ended');
  call.signal.throwIfAborted();
  return refusal;
}

/** `old new ref`, one line for each (githooks(5), "pre-receive"). */
function stdinOf(updates: readonly RefCommand[]): Uint8Array {
  return Buffer.from(
    updates.map(({ ref, oldOid, newOid }) => `${oldOid} ${newOid} ${ref}\n`).join(''),
  );
}

function environmentOf(call: HookCall): Record<string, string> {
  const options = call.pushOptions.map((option, index) => [`GIT_PUSH_OPTION_${index}`, option]);
  return {
    ...(options.length === 0
      ? {}
      : { GIT_PUSH_OPTION_COUNT: String(options.length), ...Object.fromEntries(options) }),
    QUORATE_USER: call.user,
    QUORATE_REPOSITORY: call.repositoryName,
    QUORATE_PUSH_ID: call.pushId,
    ...(call.stage === 'post-receive' ? {} : markOf(call.repositoryId)),
  };
}

/** git hands it on over HTTP by this, and over SSH by what its own configuration says (`backends/git/environment.ts`). */
function markOf(repositoryId: string): Record<string, string> {
  const mark = withinPushMark(repositoryId);
  return {
    [withinPushVariable]: mark,
    GIT_CONFIG_COUNT: '1',
    GIT_CONFIG_KEY_0: 'http.extraHeader',
    GIT_CONFIG_VALUE_0: `${withinPushHeader}: ${mark}`,
  };
}

/** Text of the `ng` line. git's own words where it has some. */
function refusalOf(stage: HookStage, end: HookEnd, limits: HookLimits): string | undefined {
  const declined = stage === 'update' ? 'hook declined' : `${stage} hook declined`;
  switch (end.how) {
    case 'exited':
      return end.exitCode === 0 ? undefined : declined;
    case 'killed':
      return `${declined}: it was ended by ${end.signal}`;
    case 'too-long':
      return `${declined}: it took longer than ${limits.timeoutMs / 1000} seconds`;
    case 'too-much-output':
      return `${declined}: it wrote more than ${limits.maxOutputBytes} bytes`;
    case 'too-many-processes':
      return `${declined}: it started more than ${limits.maxProcesses} processes`;
    case 'cancelled':
      return `${declined}: the push was cancelled`;
  }
}
