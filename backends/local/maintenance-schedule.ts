import type { MaintenanceReport } from '../contract/backend.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import type { MaintenanceNeed } from '../git/maintenance.js';

export interface MaintainedStore {
  /** A look at file counts: cheap enough after every push. */
  needsMaintenance(repositoryId: string): Promise<MaintenanceNeed>;
  maintain(
    repositoryId: string,
    options: { readonly signal: AbortSignal; readonly kind: 'geometric' | 'full' },
  ): Promise<MaintenanceReport>;
}

export interface MaintenanceScheduleDependencies {
  readonly enabled: boolean;
  readonly replica: () => MaintainedStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
}

/** A burst of pushes is looked at once. */
const settleMs = 1000;
/**
 * A look reads a few directories and the size of each pack, at up to half of a push's CPU: not after each of the pushes
 * that come one by one. Nothing that it finds is so urgent that it cannot wait this long.
 */
const restMs = 30_000;
/** After so many pushes, about as many as make a repack due, the next look does not wait. */
const busyPushes = 20;
/** Repositories that wait, or were looked at lately; what is beyond is considered again at its next push. */
const maxQueued = 10_000;

interface Look {
  readonly atMs: number;
  /** That came since. */
  pushes: number;
}

/** Background maintenance after pushes: one repository at a time, so that it never takes more than one core or so. */
export class MaintenanceSchedule {
  readonly #dependencies: MaintenanceScheduleDependencies;
  /** By repository, from when on it may be looked at. */
  readonly #queued = new Map<string, number>();
  /** The last look at each repository, while it counts. */
  readonly #looks = new Map<string, Look>();
  readonly #closing = new AbortController();
  #working: Promise<void> | undefined;

  constructor(dependencies: MaintenanceScheduleDependencies) {
    this.#dependencies = dependencies;
    dependencies.meter.gauge('queue_depth', { queue: 'maintenance' }, () => this.queued);
  }

  get queued(): number {
    return this.#queued.size;
  }

  /** A push was applied: look at the repository soon. */
  consider(repositoryId: string): void {
    if (!this.#dependencies.enabled || this.#closing.signal.aborted) return;
    if (this.#queued.size >= maxQueued && !this.#queued.has(repositoryId)) return;
    this.#queued.set(repositoryId, this.#dueMs(repositoryId));
    this.#begin();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#working;
  }

  #dueMs(repositoryId: string): number {
    const look = this.#looks.get(repositoryId);
    if (look === undefined) return 0;
    look.pushes += 1;
    return look.pushes >= busyPushes ? 0 : look.atMs + restMs;
  }

  #begin(): void {
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
      // One may have come after the last look.
      if (this.#queued.size > 0 && !this.#closing.signal.aborted) this.#begin();
    });
  }

  async #work(): Promise<void> {
    const { signal } = this.#closing;
    while (this.#queued.size > 0) {
      await this.#dependencies.clock.sleep(settleMs, signal);
      const nowMs = this.#dependencies.clock.monotonicMs();
      for (const [id, { atMs }] of this.#looks) if (nowMs - atMs >= restMs) this.#looks.delete(id);
      for (const [id, dueMs] of this.#queued) {
        if (signal.aborted) return;
        if (dueMs > nowMs) continue;
        this.#queued.delete(id);
        await this.#maintain(id);
        if (this.#looks.size >= maxQueued) continue;
        this.#looks.set(id, { atMs: this.#dependencies.clock.monotonicMs(), pushes: 0 });
      }
    }
  }

  async #maintain(id: string): Promise<void> {
    const { replica, logger, meter } = this.#dependencies;
    const fields = { component: 'maintenance', repo: id };
    try {
      const kind = await replica().needsMaintenance(id);
      if (kind === 'none') return;
      const report = await replica().maintain(id, { signal: this.#closing.signal, kind });
      meter.count('maintenance_runs', { outcome: 'ok' });
      logger.info({ ...fields, ...report }, 'repository maintained');
    } catch (error) {
      const { code } = asQuorateError(error);
      if (code === 'cancelled' || code === 'not-found') return;
      meter.count('maintenance_runs', { outcome: 'error' });
      // The coordinator was lost, say: that is told where it is noticed, and the next pushes bring this up again.
      if (code === 'unavailable') logger.warn({ ...fields, err: error }, 'maintenance is put off');
      else logger.error({ ...fields, err: error }, 'maintenance failed');
    }
  }
}
