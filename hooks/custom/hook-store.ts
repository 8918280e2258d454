import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import type { Clock, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { type HookStage, hookStages } from '../../backends/contract/hook.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';

/** Hooks of one repository by its id, or of the whole server. */
export type HookScope = { readonly repositoryId: string } | 'server';

const version = z.object({
  version: z.int().min(1),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  sizeBytes: z.int().min(1),
  /** Who set it. */
  by: z.string(),
  atMs: z.number(),
});

const hookRecord = z.object({
  ...version.shape,
  /** Where its content is. */
  content: z.string(),
  parts: z.int().min(1),
  /** What it was before, newest first; without content. */
  history: z.array(version),
});

export type HookVersion = z.infer<typeof version>;

export interface Hook extends HookVersion {
  readonly stage: HookStage;
  readonly history: readonly HookVersion[];
}

/**
 * Hooks in the coordinator, in parts that fit its requests. What is set is run by every push that is judged
 * afterwards. Errors: `invalid-argument`, `not-found`, `aborted` (others change the same hook), `data-corrupt`.
 */
export interface HookStore {
  list(scope: HookScope): Promise<readonly Hook[]>;
  get(scope: HookScope, stage: HookStage): Promise<Hook | undefined>;
  content(scope: HookScope, stage: HookStage): Promise<Uint8Array>;
  set(
    scope: HookScope,
    stage: HookStage,
    hook: { readonly content: Uint8Array; readonly by: string },
  ): Promise<Hook>;
  remove(scope: HookScope, stage: HookStage): Promise<void>;
  /** Those of a repository that is gone. */
  removeAll(repositoryId: string): Promise<void>;
}

/** A script, or a small static program. */
export const maxHookBytes = 1024 * 1024;
/** A third of what one request to the coordinator may hold. */
const partBytes = 512 * 1024;
const maxHistory = 20;

export function createHookStore(parts: {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly random: Random;
}): HookStore {
  return new CoordinatedHooks(parts.coordinator, parts.clock, parts.random);
}

class CoordinatedHooks implements HookStore {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(coordinator: Coordinator, clock: Clock, random: Random) {
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#random = random;
  }

  async list(scope: HookScope): Promise<readonly Hook[]> {
    const found = await Promise.all(hookStages.map((stage) => this.get(scope, stage)));
    return found.filter((hook) => hook !== undefined);
  }

  async get(scope: HookScope, stage: HookStage): Promise<Hook | undefined> {
    const entry = await this.#coordinator.get(keys.hook(nameOf(scope), stage));
    return entry === undefined ? undefined : shown(stage, decode(entry));
  }

  async content(scope: HookScope, stage: HookStage): Promise<Uint8Array> {
    const entry = await this.#coordinator.get(keys.hook(nameOf(scope), stage));
    if (entry === undefined) throw noSuchHook(stage);
    const record = decode(entry);
    const found: Uint8Array[] = [];
    for (let part = 0; part < record.parts; part++) {
      const key = keys.hookPart(nameOf(scope), stage, record.content, part);
      const kv = await this.#coordinator.get(key);
      // Another one was set meanwhile, or its parts are lost.
      if (kv === undefined) throw new QuorateError('aborted', `the ${stage} hook was changed`);
      found.push(kv.value);
    }
    return Buffer.concat(found);
  }

  async set(
    scope: HookScope,
    stage: HookStage,
    { content, by }: { readonly content: Uint8Array; readonly by: string },
  ): Promise<Hook> {
    const name = nameOf(scope);
    const key = keys.hook(name, stage);
    const entry = await this.#coordinator.get(key);
    const before = entry === undefined ? undefined : decode(entry);
    const contentId = Buffer.from(this.#random.bytes(16)).toString('hex');
    const parts = Math.ceil(content.length / partBytes);
    for (let part = 0; part < parts; part++) {
      const value = content.subarray(part * partBytes, (part + 1) * partBytes);
      await this.#put(keys.hookPart(name, stage, contentId, part), value);
    }
    const record: z.infer<typeof hookRecord> = {
      version: (before?.version ?? 0) + 1,
      digest: createHash('sha256').update(content).digest('hex'),
      sizeBytes: content.length,
      by,
      atMs: this.#clock.nowMs(),
      content: contentId,
      parts,
      history: before === undefined ? [] : historyWith(before),
    };
    const { succeeded } = await this.#coordinator.transaction({
      binding: true,
      compares: [{ key, target: 'modRevision', op: '=', operand: entry?.modRevision ?? 0 }],
      success: [{ type: 'put', key, value: Buffer.from(JSON.stringify(record)) }],
      failure: [],
    });
    await this.#removeParts(name, stage, succeeded ? contentId : undefined, contentId);
    if (!succeeded) throw new QuorateError('aborted', `the ${stage} hook was changed just now`);
    return shown(stage, record);
  }

  async remove(scope: HookScope, stage: HookStage): Promise<void> {
    const key = keys.hook(nameOf(scope), stage);
    const parts = keys.hookParts(nameOf(scope), stage);
    const { succeeded } = await this.#coordinator.transaction({
      binding: true,
      compares: [{ key, target: 'version', op: '>', operand: 0 }],
      success: [
        { type: 'delete', key },
        { type: 'delete', key: parts, rangeEnd: prefixEnd(parts) },
      ],
      failure: [],
    });
    if (!succeeded) throw noSuchHook(stage);
  }

  async removeAll(repositoryId: string): Promise<void> {
    const name = nameOf({ repositoryId });
    await this.#coordinator.transaction({
      compares: [],
      success: hookStages.flatMap((stage) => {
        const parts = keys.hookParts(name, stage);
        return [
          { type: 'delete' as const, key: keys.hook(name, stage) },
          { type: 'delete' as const, key: parts, rangeEnd: prefixEnd(parts) },
        ];
      }),
      failure: [],
    });
  }

  async #put(key: string, value: Uint8Array): Promise<void> {
    await this.#coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key, value }],
      failure: [],
    });
  }

  /**
   * After a change, everything but what is in force: also what a change that was cut short has left. Whoever is
   * writing parts now will find the record changed. After a lost race, only one's own.
   */
  async #removeParts(
    name: string,
    stage: HookStage,
    kept: string | undefined,
    own: string,
  ): Promise<void> {
    const prefix =
      kept === undefined ? `${keys.hookParts(name, stage)}${own}/` : keys.hookParts(name, stage);
    const { entries } = await this.#coordinator.range(prefix, {
      rangeEnd: prefixEnd(prefix),
      keysOnly: true,
      limit: 100,
    });
    const old = entries.filter(
      ({ key }) => kept === undefined || !key.startsWith(`${prefix}${kept}/`),
    );
    if (old.length === 0) return;
    await this.#coordinator.transaction({
      compares: [],
      success: old.map(({ key }) => ({ type: 'delete', key })),
      failure: [],
    });
  }
}

function nameOf(scope: HookScope): string {
  return scope === 'server' ? 'server' : `repositories/${encodeURIComponent(scope.repositoryId)}`;
}

function historyWith({ content: _content, parts: _parts, history, ...before }: HookRecord) {
  return [before, ...history].slice(0, maxHistory);
}

type HookRecord = z.infer<typeof hookRecord>;

function shown(stage: HookStage, { content: _content, parts: _parts, ...hook }: HookRecord): Hook {
  return { stage, ...hook };
}

function decode(entry: KeyValue): HookRecord {
  try {
    const json: unknown = JSON.parse(Buffer.from(entry.value).toString('utf8'));
    return hookRecord.parse(json);
  } catch (cause) {
    throw new QuorateError('data-corrupt', 'the record of a hook is damaged', { cause });
  }
}

function noSuchHook(stage: HookStage): QuorateError {
  return new QuorateError('not-found', `there is no ${stage} hook here`);
}

/** Why these bytes cannot be a hook, or undefined when the kernel would run them. */
export function hookProblem(content: Uint8Array): string | undefined {
  if (content.length > maxHookBytes) return 'is larger than 1 MiB';
  const start = Buffer.from(content.subarray(0, 256)).toString('latin1');
  if (start.startsWith('\x7fELF')) return undefined;
  if (!start.startsWith('#!'))
    return 'is no program: its first line has to name one, like #!/bin/sh';
  const [line = ''] = start.split('\n');
  if (line.endsWith('\r'))
    return 'has lines that end in CR: #! would look for a program of that name';
  return undefined;
}
