import { z } from 'zod';
import type { DifferingSetting } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { scan } from './records.js';

type Settings = Readonly<Record<string, string>>;

/** What a front-end says of itself in its record. */
export interface FrontEndFacts {
  readonly nodeId: string;
  /** Those that have to be the same at all front-ends of the cluster, as words, by name. */
  readonly settings: Settings;
}

/** Both absent in records of earlier versions. */
const schema = z.object({
  nodeId: z.string().optional(),
  settings: z.record(z.string(), z.string()).optional(),
});

/** The settings in which the front-ends that live differ, with who has which; in order. */
export async function readDifferingSettings(
  coordinator: Coordinator,
): Promise<readonly DifferingSetting[]> {
  // One that was killed and started again has two records for some seconds: the later counts.
  const latest = new Map<string, { readonly revision: number; readonly settings: Settings }>();
  for await (const { value, createRevision: revision } of scan(coordinator, keys.frontEnd(''))) {
    const { data } = schema.safeParse(JSON.parse(new TextDecoder().decode(value)));
    const { nodeId, settings } = data ?? {};
    if (nodeId === undefined || settings === undefined) continue;
    if (revision > (latest.get(nodeId)?.revision ?? 0)) latest.set(nodeId, { revision, settings });
  }
  const found = new Map<string, Map<string, string[]>>();
  for (const [nodeId, { settings }] of latest) {
    for (const [name, word] of Object.entries(settings)) {
      const values = found.get(name) ?? new Map<string, string[]>();
      values.set(word, [...(values.get(word) ?? []), nodeId].sort());
      found.set(name, values);
    }
  }
  return [...found]
    .filter(([, values]) => values.size > 1)
    .map(([name, values]) => ({
      name,
      values: [...values]
        .map(([value, frontEnds]) => ({ value, frontEnds }))
        .sort((a, b) => a.value.localeCompare(b.value)),
    }))
    .sort((a, b) => a.name.localeCompare(b.name));
}

/** `replication.factor: 3 (a, b), 5 (c)` */
export function differingWords({ name, values }: DifferingSetting): string {
  const each = values.map(({ value, frontEnds }) => `${value} (${frontEnds.join(', ')})`);
  return `${name}: ${each.join(', ')}`;
}

const lookEveryMs = 60_000;
/** Those that are started together are all there then; one that is started again is there once. */
const firstLookMs = 15_000;

/** Logs in what this front-end differs from others, whenever that changes. */
export class SharedSettingsWatch {
  readonly #dependencies: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
  };
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#dependencies = dependencies;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { coordinator, clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    const context = { component: 'membership' };
    let told = '';
    await clock.sleep(firstLookMs, signal);
    while (!signal.aborted) {
      try {
        const words = (await readDifferingSettings(coordinator)).map(differingWords).join('; ');
        if (words !== told && words !== '') {
          logger.warn(
            context,
            `front-ends have different settings: ${words}; give all of them the same, or what each does undoes what another did`,
          );
        } else if (words !== told) {
          logger.info(context, 'front-ends have the same settings again');
        }
        told = words;
      } catch (error) {
        const { code } = asQuorateError(error);
        logger.debug({ ...context, code }, 'the settings of front-ends are compared later');
      }
      await clock.sleep(lookEveryMs, signal);
    }
  }
}
