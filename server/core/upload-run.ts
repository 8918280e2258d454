import type { GitStream, ReadSession } from '../../backends/contract/backend.js';
import { booleanSetting } from '../../backends/contract/settings.js';
import type { FetchScope } from '../wire/fetch-request.js';
import type { FetchGround } from './fetch-checks.js';
import type { GitContext, ServedRepository } from './git-context.js';
import type { HeldSession } from './held-session.js';
import type { GitOutcome } from './git-request.js';
import type { Place } from './admission.js';
import { visibleRefs } from './hidden-refs.js';
import { planPack } from './pack-memory.js';
import type { Relayed } from './relay-git.js';

/** The refs that a fetch may know of, in the generation that it reads. */
export function groundOf({ parts }: Pick<GitContext, 'parts'>, session: ReadSession): FetchGround {
  const visible = visibleRefs(session.repository.settings, 'uploadpack');
  return { session, visible, view: parts.views.of(session.snapshot, visible) };
}

/** A git's place among those that make packs, and its configuration, which keeps it within its memory. */
export interface PackRun extends Place {
  readonly config: Readonly<Record<string, string>>;
}

/** Waits until there is memory for a git that makes a pack. `partial`: the client has part of the history, or wants one. */
export async function enterPackRun(
  { parts, request }: GitContext,
  ground: FetchGround,
  partial: boolean,
): Promise<PackRun> {
  const admission = parts.admissions[request.transport];
  const plan = planPack(await ground.session.shape(), { alone: admission.idle, partial });
  const place = await admission.fetch(request, plan.memoryBytes);
  return {
    config: { ...runConfig(ground.session.repository), ...plan.config },
    leave: () => place.leave(),
  };
}

export interface UploadAsked {
  readonly ground: FetchGround;
  /** The client has part of the history, or wants one. */
  readonly partial: boolean;
  /** One whole v2 request. */
  readonly input: Uint8Array;
  /** Ends the run. */
  readonly signal: AbortSignal;
}

/** Starts a git for a v2 request; memory and read are its own until it is gone, whoever asked for it. */
export async function startUpload(
  context: GitContext,
  held: HeldSession,
  { ground, partial, input, signal }: UploadAsked,
): Promise<GitStream> {
  const run = await enterPackRun(context, ground, partial);
  held.hold();
  const leave = (): void => {
    run.leave();
    held.letGo();
  };
  try {
    const { visible, session } = ground;
    const { config } = run;
    const git = await session.uploadPack({
      protocol: 2,
      input,
      stateless: true,
      visible,
      config,
      signal,
    });
    void git.exited.then(leave);
    return git;
  } catch (error) {
    leave();
    throw error;
  }
}

/** git's configuration of a run. What may be wanted was checked here; git would refuse hidden and past commits. */
export function runConfig({ settings }: ServedRepository): Record<string, string> {
  return {
    'uploadpack.allowFilter': String(booleanSetting(settings, 'uploadpack.allowFilter')),
    'uploadpack.allowAnySHA1InWant': 'true',
    'uploadpack.allowSidebandAll': 'true',
  };
}

/** Wants some of the history only. */
export function isShallow({ depth, deepenSince, deepenNot }: FetchScope): boolean {
  return depth !== undefined || deepenSince !== undefined || deepenNot.length > 0;
}

/** The outcome of a relayed run. */
export function outcomeOf(
  { parts, request }: GitContext,
  { exitCode, errorTold, stderr }: Relayed,
  fields: Readonly<Record<string, unknown>>,
): GitOutcome {
  if (exitCode === 0) return { status: 'ok', exitCode: 0, fields };
  parts.logger.warn(
    {
      component: 'core',
      request_id: request.requestId,
      exit_code: exitCode,
      stderr: stderr.slice(-1000),
      error_told: errorTold,
    },
    'git upload-pack failed',
  );
  // A code of git's own (128: die) after an error packet is its refusal; anything else broke.
  return {
    status: exitCode === 128 && errorTold ? 'refused' : 'error',
    exitCode: 128,
    fields,
  };
}

/**
 * What clients are told when git fails without a word of its own. It has none, and dies as when it is broken, where a
 * date or a ref to exclude leaves no commit at all.
 */
export function failureText({ request }: GitContext, wanted?: FetchScope): string {
  const failed = `the server's git failed (request ${request.requestId})`;
  const selective = wanted?.deepenSince !== undefined || (wanted?.deepenNot ?? []).length > 0;
  return selective
    ? `upload-pack: no commits selected for shallow requests; if there are such commits, ${failed}`
    : failed;
}
